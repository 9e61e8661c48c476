"""Prompts that differ from step to step, and prompts of several parts, in AUTOMATIC1111's grammar:

    [a:b:0.5]   a, and b after half of the steps     [a:3]   a after step 3      [a::3]   a until step 3
    [a|b]       a and b by turns                     x AND y :0.5     both, the second half as much

https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#prompt-editing
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

DEEPEST = 50  # brackets in each other; a prompt with more is plain

_AND = re.compile(r"\bAND\b")
_AND_WEIGHT = re.compile(r"(?P<text>.*?)(?:\s*:\s*(?P<weight>[-+]?(?:\d+\.?\d*|\.\d+)))?\s*", re.DOTALL)
_TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)
_NUMBER = re.compile(r"\s*[-+]?(?:\d{1,9}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?\s*")
_CLOSED_BY = {"]": "[", ")": "("}


def sub_prompts(prompt: str) -> list[tuple[str, float]]:
    """The parts of a prompt between ANDs, each with its weight; the whole with 1 where there is no AND."""
    parts = _AND.split(prompt)
    if len(parts) == 1:
        return [(prompt, 1.0)]
    found = []
    for part in parts:
        match = _AND_WEIGHT.fullmatch(part)
        assert match is not None
        found.append((match["text"].strip(), float(match["weight"] or 1)))
    return found


def part_at(prompt: str, place: int) -> int:
    """The (0-based) part between ANDs that a place of a prompt is in."""
    return len(_AND.findall(prompt, 0, place))


def texts_by_step(text: str, steps: int) -> list[str]:
    """The text of each step. What is no editing stays as it is, `(x:1.2)` and `[x]` too.

    `when` counts steps that the old text is used in, up to that one; below 1 it is a share of all steps.
    """
    if "[" not in text:
        return [text] * steps
    parts = _parse(text)
    if not any(isinstance(part, (_Edit, _Turns)) for part in parts):
        return [text] * steps
    return [_at(parts, step, steps) for step in range(1, steps + 1)]


@dataclass(frozen=True)
class _Edit:
    """before: what is there up to step `when`; after: what is there later."""

    before: Parts
    after: Parts
    when: float

    def at(self, step: int, steps: int) -> Parts:
        last = int(self.when * steps) if self.when < 1 else int(self.when)
        return self.before if step <= last else self.after


@dataclass(frozen=True)
class _Turns:
    """What is there by turns."""

    options: Sequence[Parts]

    def at(self, step: int, steps: int) -> Parts:
        return self.options[(step - 1) % len(self.options)]


Part = str | _Edit | _Turns
Parts = tuple[Part, ...]


def _at(parts: Parts, step: int, steps: int) -> str:
    found, todo = [], list(reversed(parts))
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            found.append(part)
        else:
            todo.extend(reversed(part.at(step, steps)))
    return "".join(found)


@dataclass
class _Open:
    """A bracket that is open.

    sections: what is in it, divided at its own `:` and `|`, which are in `marks`.
    is_plain: whether it holds a bracket without a partner, so that it edits nothing.
    """

    bracket: str
    sections: list[list[Part]] = field(default_factory=lambda: [[]])
    marks: list[str] = field(default_factory=list)
    is_plain: bool = False

    def whole(self, close: str = "") -> list[Part]:
        """It as it was written."""
        parts: list[Part] = [self.bracket, *self.sections[0]]
        for mark, section in zip(self.marks, self.sections[1:], strict=True):
            parts += [mark, *section]
        return [*parts, close] if close else parts


def _parse(text: str) -> Parts:
    stack = [_Open("")]
    for token in _TOKEN.findall(text):
        here = stack[-1]
        if token in ("[", "("):
            if len(stack) > DEEPEST:
                return (text,)
            stack.append(_Open(token))
        elif token in _CLOSED_BY and here.bracket == _CLOSED_BY[token]:
            stack.pop()
            stack[-1].sections[-1] += here.whole(")") if token == ")" else _closed(here)
        elif token in _CLOSED_BY:
            here.sections[-1].append(token)
            for one in stack:
                one.is_plain = True
        elif token in (":", "|") and here.bracket == "[":
            here.marks.append(token)
            here.sections.append([])
        else:
            here.sections[-1].append(token)
    return tuple(part for one in stack for part in one.whole())  # those that were never closed are text


def _closed(bracket: _Open) -> list[Part]:
    """What a square bracket means."""
    if bracket.is_plain:
        return bracket.whole("]")
    if bracket.marks and ":" not in bracket.marks:
        return [_Turns([tuple(section) for section in bracket.sections])]
    texts: list[list[Part]] = [bracket.sections[0]]
    for mark, section in zip(bracket.marks, bracket.sections[1:], strict=True):
        if mark == ":":
            texts.append(section)
        else:
            texts[-1] = [*texts[-1], mark, *section]
    *texts, last = texts
    when = last[0] if len(last) == 1 and isinstance(last[0], str) else ""
    if len(texts) not in (1, 2) or not _NUMBER.fullmatch(when):
        return bracket.whole("]")
    before = tuple(texts[0]) if len(texts) == 2 else ()
    return [_Edit(before, tuple(texts[-1]), float(when))]
