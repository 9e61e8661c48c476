"""What programs write for something that was not chosen. One rule for option files, dataset files and the
files of other programs.
"""

from __future__ import annotations

from collections.abc import Iterator

_NO_TEXT = ("", "none", "null")
_NO = ("0", "0.0", "false", "off", "no")


def is_unset(value: object) -> bool:
    """Whether a value stands for "not given", whatever the option is: null, false, blank texts and "None", an
    empty table, and lists of nothing else. 0 is a value, and so is NaN, which somebody computed.
    """
    return all(map(_is_nothing, _leaves(value, list)))


def asks_nothing(value: object) -> bool:
    """Whether a value asks for nothing under an unknown name: also 0, NaN, "false" and tables of such."""
    return all(
        _is_nothing(leaf)
        or leaf == 0
        or leaf != leaf  # NaN
        or (isinstance(leaf, str) and leaf.strip().lower() in _NO)
        for leaf in _leaves(value, list, dict)
    )


def _is_nothing(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _NO_TEXT
    return value is None or value is False or value == {}


def _leaves(value: object, *kinds: type) -> Iterator[object]:
    """What stands in lists (and tables) of these kinds, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, kinds) and isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, kinds) and isinstance(value, list):
            waiting.extend(value)
        else:
            yield value
