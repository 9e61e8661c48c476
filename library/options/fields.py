"""How an option is declared: as a field of a section, a frozen dataclass. Its name, type, default, help and
checks are written once.

    @dataclass(frozen=True)
    class CachingOptions:
        \"""Caches.\"""  # the heading in --help

        cache_latents: bool = option(False, "encode every image once, before training")
        vae_batch_size: int = option(1, "images the VAE encodes together when caching", metavar="N")

        def __post_init__(self) -> None:
            refuse(*below(1, self, "vae_batch_size"))
            warn_when(
                (
                    self.vae_batch_size != 1 and not self.cache_latents,
                    "vae_batch_size",
                    "has no effect without --cache_latents",
                )
            )
"""

from __future__ import annotations

import ast
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from library.paths import user_path
from library.problems import Problem, UserError, warn, warn_idle
from library.secrets import Secret
from library.wording import shortened

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def option(
    default: Any,
    help: str,
    *,
    convert: Callable[[object], object] | None = None,
    metavar: str | None = None,
    aliases: tuple[str, ...] = (),
    positional: bool = False,
    several: bool = False,
    bare: Any = None,
    zero_unset: bool = False,
) -> Any:
    """Declare an option as a dataclass field; the annotation gives its type and, as a Literal, its choices.

    default: its value when it is not given. An option that must be given has None here and no None in its
        annotation: `__post_init__` refuses the None, so that those who read a section need not ask.
    convert: turns the command line's text or a TOML value into the field's value. Raises ValueError that says
        what it expects.
    metavar: what --help shows for its value.
    aliases: further flags with the same meaning.
    positional: given without a flag, by its place.
    several: takes several words; `convert` gets them as a list.
    bare: its value when it is given without one; None if it needs one.
    zero_unset: 0 is the same as not giving it, as other programs write it.
    """
    metadata = {
        "help": help,
        "convert": convert,
        "metavar": metavar,
        "aliases": aliases,
        "positional": positional,
        "several": several,
        "bare": bare,
        "zero_unset": zero_unset,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class OptionSpec:
    """One option as the parser sees it: what `option` was told, with the field's name and annotation."""

    name: str
    annotation: Any  # a type, or a form of typing's: Literal[...], X | None, tuple[X, ...]
    default: Any
    help: str
    convert: Callable[[object], object] | None
    metavar: str | None
    aliases: tuple[str, ...]
    positional: bool
    several: bool = False
    bare: Any = None
    zero_unset: bool = False

    @property
    def flag(self) -> str:
        return f"<{self.metavar or self.name}>" if self.positional else f"--{self.name}"

    @property
    def plain_type(self) -> Any:
        """The annotation without `| None`."""
        if typing.get_origin(self.annotation) in (Union, types.UnionType):
            kinds = [kind for kind in typing.get_args(self.annotation) if kind is not type(None)]
            return kinds[0]
        return self.annotation

    @property
    def is_switch(self) -> bool:
        return self.plain_type is bool

    @property
    def is_secret(self) -> bool:
        """A token: read, but never shown or written."""
        return self.plain_type is Secret

    @property
    def is_path(self) -> bool:
        """Names a file or a folder."""
        return self.item_type is Path or self.metavar in ("FILE", "FOLDER", "DIR", "MODEL")

    @property
    def is_list(self) -> bool:
        """Given as several words on the command line; without `convert`, a tuple of any length."""
        return self.several or (typing.get_origin(self.plain_type) is tuple and self.convert is None)

    @property
    def item_type(self) -> Any:
        return typing.get_args(self.plain_type)[0] if self.is_list else self.plain_type

    @property
    def choices(self) -> tuple[Any, ...]:
        return typing.get_args(self.item_type) if typing.get_origin(self.item_type) is Literal else ()

    @property
    def default_text(self) -> str | None:
        """The default as one would type it; None if it is not worth showing: the help says what one that is
        empty or off means.
        """
        default = self.default
        if default in (None, "", ()) or default is False or default is dataclasses.MISSING:
            return None
        if isinstance(default, tuple):
            words = (one if isinstance(one, tuple) else (one,) for one in default)
            return " ".join(",".join(map(str, word)) for word in words)
        return default.as_posix() if isinstance(default, Path) else str(default)

    def read(self, value: object) -> Any:
        """The field's value from command-line text (a list of words for a list) or a TOML value.

        Raises ValueError that says what the option expects.
        """
        if value in ("", "None") or (self.zero_unset and _is_zero(value)):
            return self.default
        if self.convert is not None:
            return self.convert(value)
        if self.is_list:
            value = _list_in(value)
            words = value if isinstance(value, (list, tuple)) else [value]
            return tuple(self._read_one(word) for one in words for word in self._split(one))
        if isinstance(value, (list, tuple)):
            if len(value) != 1:
                raise ValueError(f"expects one value, got {len(value)}")
            (value,) = value
        return self._read_one(value)

    def _split(self, word: object) -> list[object]:
        """The values in one of a list's words: programs write `"a=1 b=2"` and `"1e-4 1e-5"` as one text."""
        if not isinstance(word, str):
            return [word]
        parts: list[object] = list(word.split())
        is_pairs = self.item_type is str and all("=" in str(part) for part in parts)
        return parts if is_pairs or self.item_type in (int, float) else [word]

    def _read_one(self, value: object) -> Any:
        if self.choices:
            for same in (str, lambda text: str(text).casefold()):
                for choice in self.choices:
                    if same(choice) == same(value):
                        return choice
            raise ValueError(
                f"expects one of {', '.join(map(str, self.choices))}, got {shortened(repr(value))}"
            )
        return _READERS[self.item_type](value)


def specs_of(section: type) -> list[OptionSpec]:
    """The options of a section class, in the order they are written. A subclass may say in `left_out` which
    of them its commands do not have: they keep their defaults.
    """
    hints = typing.get_type_hints(section)
    left_out: frozenset[str] = getattr(section, "left_out", frozenset())
    return [
        OptionSpec(name=field.name, annotation=hints[field.name], default=field.default, **field.metadata)
        for field in dataclasses.fields(section)
        if "help" in field.metadata and field.name not in left_out
    ]


def title_of(section: type) -> str:
    """The first line of the section's docstring: its heading in --help."""
    return (section.__doc__ or section.__name__).strip().splitlines()[0].rstrip(".")


def sections_of(run_type: type) -> dict[str, type]:
    """The section classes of a Run class, by field name."""
    hints = typing.get_type_hints(run_type)
    return {field.name: hints[field.name] for field in dataclasses.fields(run_type)}


def sections_in(run: DataclassInstance) -> dict[str, DataclassInstance]:
    """The sections of a Run, by field name."""
    return {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}


def values_of(section: DataclassInstance) -> dict[str, Any]:
    """A section's options and their values, in the order they are written."""
    return {spec.name: getattr(section, spec.name) for spec in specs_of(type(section))}


def changed_values(section: DataclassInstance) -> dict[str, Any]:
    """The same without those that have their default."""
    defaults = {spec.name: spec.default for spec in specs_of(type(section))}
    return {name: value for name, value in values_of(section).items() if value != defaults[name]}


_NO_EFFECT = "has no effect"
Check = tuple[object, str, str]  # when it is a mistake (a truth value), the option, why


def refuse(*checks: Check) -> None:
    """For `__post_init__`: raises one UserError with every mistake that the checks find.

    A check is *when, option, why*, and reads as the sentence of the mistake:
    `(self.fp16 and self.bf16, "fp16", "choose --fp16 or --bf16")`.
    """
    problems = [Problem(_flag(name), why) for when, name, why in checks if when]
    if problems:
        raise UserError(problems)


def warn_when(*checks: Check) -> None:
    """The same checks for what is only worth a warning: the run goes on.

    Those whose *why* begins with "has no effect" share one line, as commands written for other programs often
    have such options; see `problems.warnings_in_order`.
    """
    for when, name, why in checks:
        if when and why.startswith(_NO_EFFECT):
            warn_idle(_flag(name), why.removeprefix(_NO_EFFECT).lstrip(": "))
        elif when:
            warn(f"{_flag(name)} {why}")


def below(least: float, section: object, *names: str) -> list[Check]:
    """The checks of a section's numbers that must not be below the least, where they are given."""
    values = {name: getattr(section, name) for name in names}
    return [
        (value is not None and value < least, name, f"must be {least} or more")
        for name, value in values.items()
    ]


def not_pairs(name: str, words: Iterable[str]) -> list[Check]:
    """The checks of an option that takes several name=value."""
    return [("=" not in word, name, f"expects name=value, got {shortened(repr(word))}") for word in words]


def _flag(name: str) -> str:
    """How messages write an option; a positional one is named in <> already."""
    return name if name.startswith("<") else f"--{name}"


def _is_zero(value: object) -> bool:
    """0 as a number or a text; not false."""
    return not isinstance(value, bool) and str(value).strip() in ("0", "0.0")


def _list_in(value: object) -> object:
    """The list that a text shows: `["a=1", "b=2"]`, `['a']`. Anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] == "[" and value.rstrip()[-1:] == "]":
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            found = ast.literal_eval(value.strip())
            return found if isinstance(found, list) else value
    return value


def _read_bool(value: object) -> bool:
    for truth in (True, False):
        if str(value).strip().lower().removesuffix(".0") in (str(truth).lower(), str(int(truth))):
            return truth
    raise ValueError(f"expects true or false, got {shortened(repr(value))}")


def _read_int(value: object) -> int:
    try:
        if isinstance(value, str):
            with suppress(ValueError):
                return int(value)
        number = float(value) if isinstance(value, str) else value  # "10.0", "1e3"
        if isinstance(number, (int, float)) and not isinstance(number, bool) and number == int(number):
            return int(number)
    except (ValueError, OverflowError):  # OverflowError: infinity
        pass
    raise ValueError(f"expects a whole number, got {shortened(repr(value))}")


def _read_float(value: object) -> float:
    number = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):  # OverflowError: a whole number of hundreds of digits
            number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expects a number, got {shortened(repr(value))}")
    return number


def _read_str(value: object) -> str:
    if isinstance(value, (bool, dict, list, tuple)):
        raise ValueError(f"expects text, got {shortened(repr(value))}")
    return str(value)


def _read_secret(value: object) -> Secret:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expects a token")  # never shows what it got
    return Secret(value.strip())


def _read_path(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expects a path, got {shortened(repr(value))}")
    return user_path(value)


_READERS: dict[type, Callable[[object], object]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
    Path: _read_path,
    Secret: _read_secret,
}
