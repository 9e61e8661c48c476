"""How messages and the dataset page put numbers of things."""

from __future__ import annotations


def plural(count: int, one: str, many: str | None = None) -> str:
    """`one` or `many` (default: `one` with an s), whichever the number asks for."""
    if count == 1:
        return one
    return f"{one}s" if many is None else many


def counted(count: int, one: str, many: str | None = None) -> str:
    """`counted(n, "image")` -> "1 image" or "3 images"; `many` says how it goes on for several:
    `counted(n, "image is", "images are")`.
    """
    return f"{count} {plural(count, one, many)}"
