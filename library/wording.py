"""Numbers of things in words, for messages and pages."""

from __future__ import annotations


def plural(count: int, one: str, many: str | None = None) -> str:
    """`one` or `many`, as the number requires. many: `one` with an s by default."""
    if count == 1:
        return one
    return f"{one}s" if many is None else many


def counted(count: int, one: str, many: str | None = None) -> str:
    """`counted(n, "image")` -> "1 image" or "3 images"; `counted(n, "image is", "images are")`."""
    return f"{count} {plural(count, one, many)}"
