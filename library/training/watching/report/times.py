"""The report's section on where the time of a run went."""

from __future__ import annotations

from collections.abc import Mapping

from library.pages.figures import percent
from library.pages.markup import Html, element, join

LEAST = 0.001  # of the whole time: a part that takes less has no row
# The device computes, it has nothing to do, and what training waits for besides.
_KINDS = {"forward": "train", "backward": "train", "optimizer": "train", "waiting for data": "waits"}
_NOTE = (
    "Since this start of the run. Forward, backward and optimizer are what the device took; waiting for data "
    "is when it had nothing to do."
)


def times(seconds: Mapping[str, float]) -> Html | None:
    """A row for each part that took time, in the order of `seconds`; None before the first step."""
    total, longest = sum(seconds.values()), max(seconds.values(), default=0.0)
    if not total:
        return None
    taken = {part: value for part, value in seconds.items() if value >= LEAST * total}
    rows = [
        element(
            "li",
            element("span", part, class_="label"),
            element(
                "span",
                element(
                    "span", class_=_KINDS.get(part, "other"), style=f"width:{100 * value / longest:.1f}%"
                ),
                class_="track",
            ),
            element("span", f"{duration(value)}, {percent(value / total)}", class_="value"),
        )
        for part, value in taken.items()
    ]
    return join([element("p", _NOTE, class_="soft"), element("ul", rows, class_="bars times")])


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
