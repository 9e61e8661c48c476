"""The dataset file: TOML or JSON with [general], [[datasets]] and [[datasets.subsets]].

Keys, types and fallbacks are those of sd-scripts (its docs/config_README). Every key is read by the reader of
its command-line option, so a value means the same in both places.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from library.data.config.keys import (
    DATASET,
    FOREIGN,
    GENERAL,
    SUBSET,
    TOP,
    WITHOUT_EFFECT,
    Kind,
    explain_unknown,
    kind_of_subset,
)
from library.data.config.specs import DATASET_KEYS, OPTION_NAMES, SUBSET_KEYS, Given
from library.data.config.text import ConfigText, read_config_text
from library.options.data import DataOptions
from library.options.fields import OptionSpec, specs_of
from library.options.unset import asks_nothing, is_unset
from library.paths import user_path
from library.problems import Problems, warn_idle
from library.table_files import PATH_FIX
from library.text_files import is_text
from library.wording import shortened

_MOST_UNKNOWN = 10  # keys of a table that each have a message

Tables = tuple[Given, Given, list[Given]]  # [general], a dataset, its subsets


def read_dataset_file(path: Path, problems: Problems) -> list[Tables]:
    """The datasets of a file, each with the general table and its subsets; None values count as not given."""
    text = problems.attempt(read_config_text, path)
    return [] if text is None else _Reader(text, problems).read()


@dataclasses.dataclass
class _Reader:
    """Reads a file's tables. What cannot be used is added to `problems` and left out."""

    text: ConfigText
    problems: Problems

    def read(self) -> list[Tables]:
        top = self._named_right(self.text.content, "", TOP)
        if "subsets" in top:
            top.setdefault("datasets", [{"subsets": top["subsets"]}])
        general = self._values({} if top.get("general") is None else top["general"], "general", GENERAL)
        datasets = self._array(top.get("datasets"), ("datasets", ""), "[[datasets]]")
        return [
            (general, *self._dataset(dataset, f"dataset {number}"))
            for number, dataset in enumerate(datasets, 1)
        ]

    def _dataset(self, dataset: Any, table: str) -> tuple[Given, list[Given]]:
        if not isinstance(dataset, dict):
            self._add(table, "", f"is {_shown(dataset)}, not a table", "write [[datasets]] above its keys")
            return {}, []
        dataset = self._named_right(dataset, table, DATASET)
        tables = self._array(dataset.pop("subsets", None), (table, "subsets"), "[[datasets.subsets]]")
        kind = self._kind(tables, table)
        subsets = [
            self._subset(subset, f"{table}, subset {number}", kind) for number, subset in enumerate(tables, 1)
        ]
        given = self._values(dataset, table, DATASET, kind=kind)
        return given, [subset for subset in subsets if subset is not None]

    def _kind(self, tables: list[Any], table: str) -> Kind:
        kinds = {kind_of_subset(subset) for subset in tables if isinstance(subset, dict)}
        if len(kinds) > 1:
            self._add(table, "", f"mixes subsets of {' and '.join(sorted(kinds))}", "make a dataset for each")
        return kinds.pop() if len(kinds) == 1 else Kind.FOLDERS

    def _subset(self, subset: Any, table: str, kind: Kind) -> Given | None:
        """The subset's keys, or None when it does not say where its images are."""
        before = len(self.problems.found)
        given = self._values(subset, table, SUBSET, kind=kind)
        if "image_dir" in given or "metadata_file" in given:
            return given
        if len(self.problems.found) == before:
            self._add(table, "", "needs image_dir", "the folder with its images")
        return None

    def _values(
        self, content: Any, table: str, allowed: tuple[str, ...], *, kind: Kind = Kind.FOLDERS
    ) -> Given:
        """The values of a table, each read and checked by its type."""
        if not isinstance(content, dict):
            self._add(table, "", f"is {_shown(content)}, not a table", "write its keys below it")
            return {}
        given: dict[str, tuple[str, Any]] = {}
        for key, value in self._named_right(content, table, allowed).items():
            place = self.text.place(table, key)
            if _is_unset(key, value):
                continue
            if key in WITHOUT_EFFECT[kind]:
                warn_idle(f"{place}:", f"in a dataset of {kind.value}")
                continue
            if key in FOREIGN[kind]:
                self.problems.add(place, f"means nothing in a dataset of {kind.value}", "remove it")
                continue
            try:
                given[key] = place, self._read(key, value)
            except ValueError as error:
                self.problems.add(place, *_cause_and_fix(error, value))
                if key == "resolution":
                    given[key] = place, ()  # so that it is not reported as missing
        return given

    def _read(self, key: str, value: Any) -> Any:
        """Raises ValueError with a cause, and a fix where the key's type does not say it."""
        if key in _PATHS and isinstance(value, str):
            if any(ord(letter) < 32 for letter in value):
                cause = f"is {_shown(value)}: a \\ in double quotes begins a special character"
                raise ValueError(cause, PATH_FIX[self.text.suffix])
            try:
                user_path(value)
            except ValueError as error:
                raise ValueError(f"is {str(error).partition(', got ')[2]}", "write it anew") from None
            value = _as_this_system_writes(value)
        if isinstance(value, str) and not is_text(value):
            raise ValueError(f"is {_shown(value)}, which holds what is not text", "write it anew")
        return _READERS[key](value)

    def _named_right(self, content: dict[str, Any], table: str, allowed: tuple[str, ...]) -> dict[str, Any]:
        """The table without keys that it cannot have. A wrong name is a problem; its value is then read as
        that of the key most likely meant, so that it is checked too.
        """
        known = {key: value for key, value in content.items() if key in allowed}
        unknown = [key for key, value in content.items() if key not in allowed and not asks_nothing(value)]
        for key in unknown[:_MOST_UNKNOWN]:
            cause, fix, meant = explain_unknown(key, allowed)
            self._add(table, shortened(key), cause, fix)
            if meant is not None:
                known.setdefault(meant, content[key])
        if (more := len(unknown) - _MOST_UNKNOWN) > 0:
            self._add(table, "", f"and {more:,} more: there are no such keys", "see docs/datasets.md")
        return known

    def _array(self, value: Any, place: tuple[str, str], header: str) -> list[Any]:
        if isinstance(value, list) and value:
            return value
        if value in (None, [], {}):
            self._add(*place, "is missing or empty", f"add {header}")
        elif isinstance(value, dict):
            self._add(*place, "is one table, not an array of tables", f"write {header}, with two brackets")
        else:
            self._add(*place, f"is {_shown(value)}, not an array of tables", f"write {header}")
        return []

    def _add(self, table: str, key: str, cause: str, fix: str) -> None:
        self.problems.add(self.text.place(table, key), cause, fix)


def _cause_and_fix(error: ValueError, value: Any) -> tuple[str, ...]:
    """The error's own, or made of an option's "expects a number, got 'x'"."""
    if len(error.args) == 2:
        return error.args
    expects, _, _ = str(error).partition(", got ")
    return f"is {_shown(value)}", f"it {expects}"


def _is_unset(key: str, value: Any) -> bool:
    """Whether programs write the value for a key that is not set. A blank text of a key that takes texts is a
    value: it unsets what a wider table sets. False is one of switches.
    """
    if key in _TEXTS and isinstance(value, str):
        return value in ("None", "null")
    return is_unset(value) and not (value is False and key in _SWITCHES)


def _shown(value: Any) -> str:
    return shortened(repr(value))


def _as_this_system_writes(path: str) -> str:
    """A path; one written for Windows with slashes, if it exists here that way."""
    slashed = path.replace("\\", "/")
    return slashed if os.sep == "/" and not Path(path).exists() and Path(slashed).exists() else path


def _readers() -> dict[str, Callable[[Any], Any]]:
    by_option = {spec.name: spec for spec in specs_of(DataOptions)}
    options = {key: by_option.get(OPTION_NAMES.get(key, key)) for key in (*DATASET_KEYS, *SUBSET_KEYS)}
    # An empty text counts as given: it unsets, in one table, what a wider one sets.
    # And 0 is a value of its own: num_repeats = 0 leaves a subset out.
    specs = {
        key: dataclasses.replace(spec, default="", zero_unset=False)
        for key, spec in options.items()
        if spec is not None
    }
    return {key: spec.read for key, spec in specs.items()} | {
        "image_dir": _own("image_dir", Path),
        "metadata_file": _own("metadata_file", Path),
        "is_reg": _own("is_reg", bool),
        "class_tokens": _own("class_tokens", str),
        "network_multiplier": _own("network_multiplier", float),
        "custom_attributes": _own("custom_attributes", dict, _read_attributes),
    }


def _own(name: str, kind: Any, convert: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """The reader of a key without an option of the same meaning."""
    return OptionSpec(name, kind, "", "", convert=convert, metavar=None, aliases=(), positional=False).read


def _read_attributes(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expects a table, got {value!r}")
    return value


_READERS = _readers()
_SWITCHES = {spec.name for spec in specs_of(DataOptions) if spec.is_switch} | {"is_reg"}
_TEXTS = {spec.name for spec in specs_of(DataOptions) if spec.plain_type is str} | {"class_tokens"}
_PATHS = ("image_dir", "metadata_file", "conditioning_data_dir", "inpainting_masks")
