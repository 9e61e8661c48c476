"""Charts of the page, drawn with HTML: they take any width, their numbers can be read and copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from library.data.buckets import Size
from library.pages.markup import Html, element
from library.wording import plural

# Tokens per column of the histogram: those that divide 75, so that no column lies across the limit.
WIDTHS = (1, 3, 5, 15, 25, 75)
MOST_COLUMNS = 48


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart. link: the id of what it is about; note: a remark behind the number."""

    label: str
    value: int
    size: Size | None = None
    link: str | None = None
    note: str | None = None


def bars(rows: Sequence[Bar]) -> Html:
    """One bar a row, as long as its value."""
    largest = max((row.value for row in rows), default=0) or 1
    return element("ul", [_bar(row, largest) for row in rows], class_="bars")


def shares(parts: Sequence[tuple[str, int, str]]) -> Html:
    """One bar of (name, value, kind) parts and a legend. kind: the CSS class that colours it."""
    parts = [part for part in parts if part[1]]
    total = sum(value for _, value, _ in parts) or 1
    pieces = [element("span", class_=kind, style=f"flex-grow:{value}") for _, value, kind in parts]
    legend = [
        element(
            "li",
            element("span", class_=f"swatch {kind}"),
            f"{name} ",
            element("b", number(value)),
            f" {percent(value / total)}",
        )
        for name, value, kind in parts
    ]
    return element(
        "div",
        element("div", pieces, class_="shares", aria_hidden="true"),
        element("ul", legend, class_="legend"),
    )


def histogram(values: Sequence[int], limit: int) -> Html:
    """How many captions have how many tokens; those past the limit in the colour of a warning."""
    longest = max([*values, limit])
    width = next((w for w in WIDTHS if longest / w <= MOST_COLUMNS), WIDTHS[-1])
    counts = Counter(-(-value // width) for value in values)
    tallest = max(counts.values(), default=0) or 1
    columns = [
        _column(index, counts[index], tallest, width, limit) for index in range(-(-longest // width) + 1)
    ]
    label = f"Captions by their number of tokens: {summary(values, limit)}"
    return element("div", columns, class_="histogram", role="img", aria_label=label)


def summary(values: Sequence[int], limit: int) -> str:
    """The figure in words."""
    if not values:
        return "there are none"
    ordered = sorted(values)
    over = sum(value > limit for value in values)
    longer = f"{number(over)} of {number(len(values))} are" if over > 1 else "one is" if over else "none is"
    half = f"half have {ordered[len(ordered) // 2]} or fewer"
    return f"from {ordered[0]} to {ordered[-1]}, {half}; {longer} longer than {limit}"


def shape(size: Size) -> Html:
    """A small rectangle of the size's aspect ratio."""
    scale = 18 / max(size)
    style = f"width:{max(3, round(size[0] * scale))}px;height:{max(3, round(size[1] * scale))}px"
    return element("span", element("span", style=style), class_="shape", aria_hidden="true")


def number(value: int) -> str:
    """With thin spaces between thousands."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def counted(value: int, one: str, many: str | None = None) -> str:
    """ "1 picture", "2 pictures": `wording.counted` with thin spaces between thousands."""
    return f"{number(value)} {plural(value, one, many)}"


def percent(share: float) -> str:
    text = f"{share * 100:.0f}" if share >= 0.095 or share == 0 else f"{share * 100:.1f}"
    return f"{text}\N{NARROW NO-BREAK SPACE}%"


def times(size: Size) -> str:
    return f"{size[0]}\N{NARROW NO-BREAK SPACE}×\N{NARROW NO-BREAK SPACE}{size[1]}"


def _bar(row: Bar, largest: int) -> Html:
    label = element("a", row.label, href=f"#{row.link}") if row.link else row.label
    return element(
        "li",
        shape(row.size) if row.size else None,
        element("span", label, class_="label"),
        element("span", element("span", style=f"width:{100 * row.value / largest:.1f}%"), class_="track"),
        element("span", number(row.value), class_="value"),
        element("span", row.note, class_="note") if row.note else None,
        class_="flagged" if row.note else None,
    )


def _column(index: int, count: int, tallest: int, width: int, limit: int) -> Html:
    low, high = max(0, (index - 1) * width + 1), index * width
    span = str(high) if low >= high else f"{low} to {high}"
    height = max(1.5, 100 * count / tallest) if count else 0
    return element(
        "span",
        element("span", style=f"height:{height:.1f}%"),
        element("small", str(high)) if high % (width * 5) == 0 or high == limit else None,
        class_=" ".join(filter(None, ("over" if low > limit else "", "limit" if high == limit else "")))
        or None,
        title=f"{span} tokens: {counted(count, 'caption')}",
    )
