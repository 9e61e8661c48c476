"""Concepts: what a slider is taught from prompts alone, read from the file of --prompts_file.

    [[prompts]]                          [slider]
    target = "van gogh"                  neutrals = ["", "photo"]
    positive = "van gogh"                [[slider.targets]]
    action = "erase"                     target_class = "person"
                                         positive = "smiling person"
                                         negative = "sad person"

Keys of a table that is above others are the defaults of those below it. The keys are those of LECO
(https://github.com/p1atdev/LECO) and sd-scripts; YAML and JSON files have the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast, get_args

from library.problems import Problems, UserError
from library.table_files import kind_of, read_document
from library.text_files import read_text
from library.wording import shortened

Action = Literal["erase", "enhance"]
Table = Mapping[str, Any]
DYNAMIC_STEP = 64  # pixels between the sides that dynamic_resolution chooses from


@dataclass(frozen=True)
class Concept:
    """A direction that the network learns for a prompt.

    target: the prompt whose prediction is taught.
    positive, unconditional: the direction is the difference of what the model predicts for the two.
    neutral: what the target is moved away from or beyond.
    action: erase goes against the direction, enhance along it.
    guidance_scale: how far.
    resolution: (width, height) in pixels.
    dynamic_resolution: whether each step has sides between half of it and the whole.
    dynamic_crops: whether models with size conditioning are told of crops.
    batch_size: samples of a step and process.
    multiplier: the network's strength while it is taught.
    weight: what the loss is multiplied by.
    """

    target: str
    positive: str
    unconditional: str = ""
    neutral: str = ""
    action: Action = "erase"
    guidance_scale: float = 1.0
    resolution: tuple[int, int] = (512, 512)
    dynamic_resolution: bool = False
    dynamic_crops: bool = False
    batch_size: int = 1
    multiplier: float = 1.0
    weight: float = 1.0

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """Target, positive, neutral and unconditional prompt."""
        return self.target, self.positive, self.neutral, self.unconditional

    def __str__(self) -> str:
        width, height = self.resolution
        sign = "+" if self.action == "enhance" else "-"
        told = f"{self.target!r} -> {self.neutral!r} {sign} ({self.positive!r} - {self.unconditional!r})"
        return f"{told} at {self.multiplier:g}, {width}x{height}"


def read_concepts(path: Path, *, pixel_multiple: int = 8) -> list[Concept]:
    """The concepts of a file, sliders expanded. pixel_multiple: what sides must be multiples of.

    Raises UserError with everything that is wrong.
    """
    content, problems = read_document(path), Problems()
    if isinstance(content, list):
        content = {"prompts": content}
    if not isinstance(content, dict):
        raise UserError.of(path, f"is {kind_of(content)}, not tables", "write [[prompts]] or [slider]")
    reader = _Reader(path, pixel_multiple, problems)
    found = list(reader.read(content))
    problems.raise_if_any()
    if not found:
        fix = "write [[prompts]], or [slider] with [[slider.targets]]"
        raise UserError.of(path, "has no prompts to learn from", fix)
    return found


@dataclass(frozen=True)
class _Reader:
    path: Path
    pixel_multiple: int
    problems: Problems

    def read(self, content: Table) -> Iterator[Concept]:
        own = self._values(content, "", {"prompts", "slider", "targets"}, "at the top")
        for place, entry in self._entries(content, "prompts", "prompts"):
            yield from self._concepts(entry, place, own)
        for place, entry in self._entries(content, "targets", "targets"):
            yield from self._concepts(entry, place, own)
        for place, slider in self._entries(content, "slider", "slider"):
            if "targets" not in slider:
                yield from self._concepts(slider, place, own)
                continue
            inner = _over(own, self._values(slider, place, {"targets"}, place))
            for name, entry in self._entries(slider, "targets", "slider.targets"):
                yield from self._concepts(entry, name, inner)

    def _entries(self, table: Table, key: str, place: str) -> Iterator[tuple[str, Table]]:
        entries = table.get(key, [])
        entries = [entries] if isinstance(entries, dict) else entries
        if not isinstance(entries, list):
            self.problems.add(self.path, f"{place} is {kind_of(entries)}", f"write [[{place}]]")
            return
        for number, entry in enumerate(entries, start=1):
            if isinstance(entry, dict):
                yield f"{place} {number}", entry
            else:
                self.problems.add(self.path, f"{place} {number} is {kind_of(entry)}, not a table")

    def _concepts(self, entry: Table, place: str, above: Table) -> Iterator[Concept]:
        before = len(self.problems.found)
        given = _over(above, self._values(entry, place, set(), place))
        if len(self.problems.found) > before:
            return
        make = _of_slider if "target_class" in given else _of_prompt
        try:
            found = list(make(given))
        except ValueError as error:
            self.problems.add(self.path, f"{place} {error}")
            return
        for concept in found:
            if fault := self._fault(concept):
                self.problems.add(self.path, f"{place}: {fault}")
                return
        yield from found

    def _values(self, table: Table, place: str, tables: set[str], where: str) -> dict[str, Any]:
        """A table's values, read. tables: keys that are no values."""
        found: dict[str, Any] = {}
        for key, value in table.items():
            if key in tables:
                continue
            if key not in KEYS:
                close = get_close_matches(key, KEYS, n=1)
                fix = f"did you mean {close[0]}?" if close else f"there are {', '.join(KEYS)}"
                self.problems.add(self.path, f"{where}: there is no key {shortened(key)}", fix)
                continue
            try:
                found[key] = KEYS[key](value)
            except ValueError as error:
                name = f"{place}: {key}" if place else key
                self.problems.add(self.path, f"{name} {error}, got {shortened(repr(value))}")
        for name in ("neutral_prompt_file", "prompt_file"):
            if name in found:
                lines = self.problems.attempt(_lines_of, self.path.parent / found.pop(name))
                found["neutrals"] = (*found.get("neutrals", ()), *(lines or ()))
        return found

    def _fault(self, concept: Concept) -> str:
        """What is wrong with a concept whose values are right one by one; "" when nothing is."""
        width, height = concept.resolution
        if width % self.pixel_multiple or height % self.pixel_multiple:
            return f"resolution {width}x{height} is no multiple of {self.pixel_multiple}"
        if concept.dynamic_resolution and width != height:
            return f"dynamic_resolution is for squares, resolution is {width}x{height}"
        if concept.dynamic_resolution and width < DYNAMIC_STEP:
            return f"dynamic_resolution needs a resolution of {DYNAMIC_STEP} or more, got {width}"
        if not concept.multiplier:
            return "multiplier is 0: the network would learn nothing"
        return ""


def _over(above: Table, own: Table) -> dict[str, Any]:
    """A table's values with those above it as defaults. Its own neutrals replace all above."""
    names = {"neutral", "neutrals"}
    kept = {key: value for key, value in above.items() if not (key in names and names & own.keys())}
    kept = {k: v for k, v in kept.items() if not (k.startswith("resolution") and _says_resolution(own))}
    return {**kept, **own}


def _says_resolution(table: Table) -> bool:
    return "resolution" in table or "resolutions" in table


def _of_prompt(given: Table) -> Iterator[Concept]:
    """The concepts of an entry without target_class, one for each of its resolutions."""
    if "target" not in given:
        raise ValueError("has no target: the prompt to change")
    if stray := [key for key in ("negative", "neutrals") if key in given]:
        raise ValueError(f"has {stray[0]}, which is of sliders: it needs a target_class")
    unconditional = given.get("unconditional", "")
    for settings in _settings(given):
        yield Concept(
            target=given["target"],
            positive=given.get("positive", given["target"]),
            unconditional=unconditional,
            neutral=given.get("neutral", unconditional),
            action=given.get("action", "erase"),
            multiplier=given.get("multiplier", 1.0),
            **settings,
        )


def _of_slider(given: Table) -> Iterator[Concept]:
    """What a slider is, for each neutral and each resolution: away from one side and towards the other at
    its multiplier, and the other way round at minus its multiplier.
    """
    if stray := [key for key in ("target", "unconditional", "action") if key in given]:
        raise ValueError(f"has {stray[0]}, which a slider's positive and negative say")
    target, positive = given["target_class"], given.get("positive", "")
    negative, strength = given.get("negative", ""), given.get("multiplier", 1.0)
    if not positive and not negative:
        raise ValueError("has neither positive nor negative: give at least one")
    rows: list[tuple[str, str, Action, float]]  # positive, unconditional, action, multiplier
    if positive and negative:
        rows = [
            (negative, positive, "erase", strength),
            (positive, negative, "enhance", strength),
            (positive, negative, "erase", -strength),
            (negative, positive, "enhance", -strength),
        ]
    elif negative:
        rows = [(negative, "", "erase", strength), (negative, "", "enhance", -strength)]
    else:
        rows = [(positive, "", "enhance", strength), (positive, "", "erase", -strength)]
    neutrals = [*given.get("neutrals", ()), *([given["neutral"]] if "neutral" in given else [])]
    for neutral in dict.fromkeys(neutrals or [""]):
        for settings in _settings(given):
            for towards, away, action, multiplier in rows:
                yield Concept(target, towards, away, neutral, action, multiplier=multiplier, **settings)


def _settings(given: Table) -> Iterator[dict[str, Any]]:
    """The rest of a concept for each resolution."""
    names = ("guidance_scale", "dynamic_resolution", "dynamic_crops", "batch_size", "weight")
    rest = {name: given[name] for name in names if name in given}
    for resolution in given.get("resolutions") or [given.get("resolution", (512, 512))]:
        yield {**rest, "resolution": resolution}


def _lines_of(path: Path) -> tuple[str, ...]:
    """The prompts of a file, one a line; blank lines and those that begin with # are left out."""
    lines = (line.strip() for line in read_text(path).splitlines())
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise UserError.of(path, "has no prompts", "write one a line")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expects a text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list):
        raise ValueError("expects a list of texts")
    return tuple(map(_text, value))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("expects a number")
    return float(value)


def _weight(value: object) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError("expects a number of 0 or more")
    return number


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("expects a whole number of 1 or more")
    return value


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expects true or false")
    return value


def _action(value: object) -> Action:
    for action in get_args(Action):
        if value == action:
            return cast("Action", action)
    raise ValueError("expects erase or enhance")


def _resolution(value: object) -> tuple[int, int]:
    sides = value if isinstance(value, list) else [value, value]
    try:
        width, height = map(_count, sides)
    except ValueError:
        raise ValueError("expects pixels: 512 or [width, height]") from None
    return width, height


def _resolutions(value: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("expects a list of resolutions")
    return tuple(map(_resolution, value))


KEYS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("target", "positive", "unconditional", "neutral", "target_class", "negative"), _text),
    "action": _action,
    "neutrals": _texts,
    "neutral_prompt_file": _text,
    "prompt_file": _text,
    "guidance_scale": _number,
    "resolution": _resolution,
    "resolutions": _resolutions,
    "dynamic_resolution": _switch,
    "dynamic_crops": _switch,
    "batch_size": _count,
    "multiplier": _number,
    "weight": _weight,
}
