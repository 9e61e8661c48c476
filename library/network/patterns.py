"""Layers that --network_args choose by their paths: which get modules, of what rank, at what learning rate.

A pattern is a regular expression that fits a layer's whole dotted path inside the U-Net or text encoder, e.g.
`input_blocks\\.4\\..*attn1.*`; where files of other programs have another path, that one will do as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from library.models.base import AttachPoint

T = TypeVar("T")
# In their order; the first one that fits counts.
Rules = tuple[tuple[str, T], ...]

_RULE = re.compile(r"\s*(.+?)\s*=\s*([-+.\w]+)\s*(?:,|$)")


def fits(pattern: str, point: AttachPoint) -> bool:
    """Whether a pattern fits the whole of a layer's path."""
    paths = (point.path,) if point.other_path is None else (point.path, point.other_path)
    return any(re.fullmatch(pattern, path) for path in paths)


def first_rule(rules: Rules[T], point: AttachPoint) -> tuple[int, T] | None:
    """The number and the value of the first rule whose pattern fits a layer's path."""
    found = ((number, value) for number, (pattern, value) in enumerate(rules) if fits(pattern, point))
    return next(found, None)


def read_patterns(text: str) -> tuple[str, ...]:
    """A Python list of regular expressions, or one expression as it is. Raises ValueError."""
    patterns: object = [text]
    if text.strip().startswith(("[", "(")) and text.strip().endswith(("]", ")")):
        try:
            patterns = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            patterns = [text]  # [a-z]+ and (a|b) are expressions too
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, Sequence) or not all(isinstance(one, str) for one in patterns):
        raise ValueError("expects a list of regular expressions, as ['a.*','b']")
    return tuple(_checked(pattern) for pattern in patterns)


def read_rules(read: Callable[[str], T]) -> Callable[[str], Rules[T]]:
    """A reader of `regex=value,regex=value`, which raises ValueError. read: of one value."""

    def rules(text: str) -> Rules[T]:
        found, end = [], 0
        while end < len(text) and (match := _RULE.match(text, end)):
            pattern, value = match.groups()
            try:
                found.append((_checked(pattern), read(value)))
            except ValueError as error:
                raise ValueError(f"expects regex=value,regex=value; {pattern}: {error}") from None
            end = match.end()
        if not found or text[end:].strip():
            raise ValueError("expects regex=value,regex=value")
        return tuple(found)

    return rules


def _checked(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"expects a regular expression ({pattern} is none: {error})") from None
    return pattern
