"""Charts drawn with HTML: they take any width, and their numbers can be read and copied. Numbers as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from library.pages.markup import Html, element
from library.wording import plural

Size = tuple[int, int]  # (width, height) in pixels


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart.

    size: of what it is about; its shape is drawn before the label.
    link: the id of the element it is about.
    note: a remark behind the number, which flags the row.
    """

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


def shape(size: Size) -> Html:
    """A small rectangle of the size's aspect ratio."""
    scale = 18 / max(size)
    style = f"width:{max(3, round(size[0] * scale))}px;height:{max(3, round(size[1] * scale))}px"
    return element("span", element("span", style=style), class_="shape", aria_hidden="true")


def number(value: int) -> str:
    """A number with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def counted(value: int, one: str, many: str | None = None) -> str:
    """ "1 picture", "2 pictures": `wording.counted` with narrow spaces between thousands."""
    return f"{number(value)} {plural(value, one, many)}"


def percent(share: float) -> str:
    """A share, 0 to 1, in percent, with one decimal below 9.5 %."""
    text = f"{share * 100:.0f}" if share >= 0.095 or share == 0 else f"{share * 100:.1f}"
    return f"{text}\N{NARROW NO-BREAK SPACE}%"


def times(size: Size) -> str:
    """ "640 × 480" """
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
