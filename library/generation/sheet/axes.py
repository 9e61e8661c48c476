"""What a grid varies: `--xy "scale=3,5,7;steps=10,20"`. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from library.generation.prompt_options import PromptSyntax
from library.generation.request import PromptRequest
from library.options.fields import OptionSpec, specs_of
from library.paths import matching_paths
from library.problems import Problems, UserError
from library.wording import counted, shortened

MOST_CELLS = 400
OPTION = "--xy"
_EXAMPLE = 'write it as "scale=3,5,7;steps=10,20"'
# Words for options that have another name. A prompt's own option comes first: it is what decides.
_PROMPT_NAMES = {
    "scale": "l",
    "cfg": "l",
    "steps": "s",
    "sampler": "ss",
    "seed": "d",
    "W": "w",
    "width": "w",
    "H": "h",
    "height": "h",
    "negative": "n",
    "negative_scale": "nl",
    "strength": "t",
}
_OPTION_NAMES = {"weights": "network_weights", "model": "ckpt"}
# What prints, counts or places pictures, or is no setting of one.
_NOT_VARIED = {
    *(
        "prompt",
        "from_file",
        "from_module",
        "interactive",
        "outdir",
        "xy",
        "no_contact_sheet",
        "contact_sheet",
    ),
    *("n_iter", "images_per_prompt", "batch_size", "image_format", "tokenizer_cache_dir", "output_config"),
    *("console_log_level", "console_log_file", "console_log_simple", "sequential_file_name"),
}
_SAVE = re.compile(r"(.*?)(?:-(?:step)?(\d+))?", re.DOTALL)  # the output's name, the epoch or step
_SIGNS = re.compile(r'"(?:[^"\\]|\\.)*"|[^"]')


@dataclass(frozen=True)
class Axis:
    """A direction of a grid.

    name: what is varied, as it was written.
    values: as they were written, with file patterns resolved.
    option: the command line's option that each value is written to; None: it is `prompt_option`.
    """

    name: str
    values: tuple[str, ...]
    option: OptionSpec | None
    prompt_option: str

    def label(self, value: str) -> str:
        """What a value is called beside the grid."""
        if self.option is not None and self.option.is_path:
            return Path(value).stem or "none"
        return value or "nothing"

    def heading(self, value: str) -> str:
        """The same with the axis' name, which files can do without."""
        is_file = self.option is not None and self.option.is_path
        return self.label(value) if is_file else f"{self.name} {self.label(value)}"

    def read(self, value: str) -> Any:
        """The option's value; of an empty one what it is when it is not given. Raises ValueError."""
        assert self.option is not None
        if not value:
            return self.option.default
        return self.option.read([value] if self.option.is_list else value)


@dataclass(frozen=True)
class Cell:
    """A place in a grid. values: those of the axes, x first."""

    axes: tuple[Axis, ...]
    values: tuple[str, ...]

    @property
    def labels(self) -> dict[str, str]:
        """What the cell is, by the names of the axes."""
        return {axis.name: axis.label(v) for axis, v in zip(self.axes, self.values, strict=True)}

    def sections(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        """A run's sections with the cell's options. Raises UserError where they do not fit together."""
        changed = dict(sections)
        for axis, value in zip(self.axes, self.values, strict=True):
            if axis.option is None:
                continue
            where = f"{OPTION} {axis.name}={shortened(value)}"
            try:
                given = axis.read(value)
            except ValueError as error:
                raise UserError.of(where, str(error)) from None
            for name, section in sections.items():
                if axis.option.name in {spec.name for spec in specs_of(type(section))}:
                    changed[name] = replace(changed[name], **{axis.option.name: given})
        return changed

    def requests(self, requests: Sequence[PromptRequest], syntax: PromptSyntax) -> list[PromptRequest]:
        """Requests with the cell's prompt options. Raises UserError for values that these do not take."""
        changed = list(requests)
        for axis, value in zip(self.axes, self.values, strict=True):
            if axis.option is not None:
                continue
            try:
                changed = [syntax.options[axis.prompt_option](request, value) for request in changed]
            except ValueError as error:
                raise UserError.of(f"{OPTION} {axis.name}={shortened(value)}", f"expects {error}") from None
        return changed


def read_axes(text: str, sections: Sequence[type], syntax: PromptSyntax) -> list[Axis]:
    """The axes of a grid, x first.

    sections: the classes of the command's options.
    syntax: what prompts may end in.
    Raises UserError with all that is wrong with them.
    """
    problems = Problems()
    axes = [problems.attempt(_axis, part.strip(), sections, syntax) for part in _split(text, ";")]
    problems.raise_if_any()
    read = [axis for axis in axes if axis is not None]
    if len(read) > 2:
        raise UserError.of(OPTION, f"has {len(read)} axes", "a grid has one or two")
    if len({(axis.option, axis.prompt_option) for axis in read}) < len(read):
        raise UserError.of(OPTION, f"varies {read[0].name} twice")
    return read


def cells_of(axes: Sequence[Axis]) -> list[Cell]:
    """The places of a grid, row by row. Raises UserError for more than anybody looks at."""
    down, across = (axes[1].values if len(axes) > 1 else ("",)), axes[0].values
    if (count := len(down) * len(across)) > MOST_CELLS:
        raise UserError.of(OPTION, f"asks for {counted(count, 'cell')}", f"a grid has at most {MOST_CELLS}")
    return [Cell(tuple(axes), (x, y)[: len(axes)]) for y, x in product(down, across)]


def _axis(part: str, sections: Sequence[type], syntax: PromptSyntax) -> Axis:
    name, sign, given = (piece.strip() for piece in part.partition("="))
    if not (name and sign):
        raise UserError.of(f"{OPTION} {shortened(repr(part))}", "names no option and its values", _EXAMPLE)
    option, prompt_option = _meant(name, sections, syntax)
    values = [_unquoted(value.strip()) for value in _split(given, ",")]
    if option is not None and option.is_path:
        values = [found for value in values for found in _matching(name, value)]
    values = list(dict.fromkeys(values))
    if values in ([], [""]):
        raise UserError.of(f"{OPTION} {name}", "has no values", _EXAMPLE)
    return Axis(name, tuple(values), option, prompt_option)


def _meant(name: str, sections: Sequence[type], syntax: PromptSyntax) -> tuple[OptionSpec | None, str]:
    """The option or the prompt option of a name."""
    plain = name.lstrip("-").replace("-", "_")
    options = {spec.name: spec for section in sections for spec in specs_of(section)}
    for short in (plain.lower(), _PROMPT_NAMES.get(plain)):
        if short in syntax.options and plain not in _NOT_VARIED:
            return None, short
    option = options.get(_OPTION_NAMES.get(plain, plain))
    if plain in _NOT_VARIED:
        raise UserError.of(f"{OPTION} {name}", "is nothing that a picture shows: it cannot be varied")
    if option is None:
        raise UserError.of(f"{OPTION} {shortened(name)}", "is neither an option nor one of prompts", _EXAMPLE)
    return option, ""


def _matching(name: str, value: str) -> list[str]:
    """The files of a pattern, in the order of the numbers in their names; a plain path is itself."""
    if not any(sign in value for sign in "*?[") or Path(value).exists():
        return [value]
    found = [str(path) for path in matching_paths(value)]
    if not found:
        raise UserError.of(f"{OPTION} {name}={value}", "matches no file", "check the path")
    return sorted(found, key=in_order)


def in_order(name: str) -> tuple[object, ...]:
    """Sorts names by the numbers in them: x-2 before x-10; a save without a number is the last of its run."""
    run, number = _parts_of(name)
    parts = re.findall(r"\d+|\D+", run)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], int(number or 10**30)


def run_of(name: str) -> str:
    """The output name of the run that a save is of: x of x-000004.safetensors, x-step00001200 and x."""
    return _parts_of(name)[0]


def _parts_of(name: str) -> tuple[str, str | None]:
    found = _SAVE.fullmatch(Path(name).with_suffix("").as_posix())
    assert found is not None  # it matches every name
    return found[1], found[2]


def _split(text: str, sign: str) -> list[str]:
    """The parts of a text between signs that stand in no quotes."""
    parts = [""]
    for piece in _SIGNS.findall(text):
        if piece == sign:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
