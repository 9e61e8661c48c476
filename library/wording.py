"""Numbers of things in words, for messages and pages."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence


def plural(count: int, one: str, many: str | None = None) -> str:
    """`one` or `many`, as the number requires. many: `one` with an s by default."""
    if count == 1:
        return one
    return f"{one}s" if many is None else many


def counted(count: int, one: str, many: str | None = None) -> str:
    """`counted(n, "image")` -> "1 image" or "3 images"; `counted(n, "image is", "images are")`."""
    return f"{count} {plural(count, one, many)}"


def with_article(noun: str) -> str:
    """`with_article("IA3")` -> "an IA3"; for nouns that sound as they are spelled."""
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def shortened(text: str, longest: int = 60) -> str:
    """A text as messages show it: cut, with dots, where it is longer than `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


# Controls, line and paragraph separators, and what turns the direction of writing.
_MOVES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """A text in which nothing breaks the line or moves the cursor: names in files may hold anything."""
    return _MOVES.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def columns(rows: Sequence[tuple[str, ...]], right: Collection[int] = ()) -> list[str]:
    """Rows as lines, their cells below one another. right: columns whose cells end at one place."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("   ".join(cells).rstrip())
    return lines
