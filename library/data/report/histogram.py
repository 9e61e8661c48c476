"""How long captions are, as a chart and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from library.pages.figures import counted, number
from library.pages.markup import Html, element

# Tokens per column: those that divide 75, so that no column lies across the limit.
WIDTHS = (1, 3, 5, 15, 25, 75)
MOST_COLUMNS = 48


def histogram(values: Sequence[int], limit: int) -> Html:
    """How many captions have how many tokens; those past the limit in the colour of a warning."""
    longest = max([*values, limit])
    width = next((w for w in WIDTHS if longest / w <= MOST_COLUMNS), WIDTHS[-1])
    counts = Counter(-(-value // width) for value in values)
    tallest = max(counts.values(), default=0) or 1
    columns = [
        _column(index, counts[index], tallest, width, limit) for index in range(-(-longest // width) + 1)
    ]
    label = f"Captions by their number of tokens: {in_words(values, limit)}"
    return element("div", columns, class_="histogram", role="img", aria_label=label)


def in_words(values: Sequence[int], limit: int) -> str:
    """What the chart shows, in words."""
    if not values:
        return "there are none"
    ordered = sorted(values)
    over = sum(value > limit for value in values)
    longer = f"{number(over)} of {number(len(values))} are" if over > 1 else "one is" if over else "none is"
    half = f"half have {ordered[len(ordered) // 2]} or fewer"
    return f"from {ordered[0]} to {ordered[-1]}, {half}; {longer} longer than {limit}"


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
