"""Line charts as inline SVG. Lines stretch to any width; labels are HTML beside them, readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from library.pages.figures import number
from library.pages.markup import Html, element
from library.training.watching.report.history import Point

WIDTH, HEIGHT = 1000, 400  # of the drawing's own units


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    points: in order.
    label: in the legend; empty: it is not in the legend.
    kind: the CSS class that colours it.
    errors: for each point, the length of its error bar up and down; empty: no error bars.
    """

    points: Sequence[Point]
    label: str = ""
    kind: str = "line-1"
    errors: Sequence[float] = ()


@dataclass(frozen=True)
class Frame:
    """The ranges of a chart: steps from left to right, figures from bottom to top."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, step: float) -> float:
        return round(WIDTH * (step - self.left) / max(1e-12, self.right - self.left), 1)

    def y(self, value: float) -> float:
        share = (value - self.bottom) / max(1e-30, self.top - self.bottom)
        return round(HEIGHT * (1 - min(1.02, max(-0.02, share))), 1)


def chart(title: str, lines: Sequence[Line], *, note: str = "", from_zero: bool = False) -> Html:
    """A chart with its title and legend.

    note: beside the title.
    from_zero: whether the vertical axis begins at 0.
    """
    lines = [line for line in lines if line.points]
    frame = _frame(lines, from_zero)
    drawing = element(
        "svg",
        [_grid(frame), [_draw(line, frame) for line in lines]],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title}: {_in_words(lines)}",
    )
    legend = [
        element("li", element("span", class_=f"dash {line.kind}"), line.label) for line in lines if line.label
    ]
    heading = element("h3", title, element("span", f" {note}", class_="soft") if note else None)
    plot = element("div", drawing, _labels(frame), class_="plot")
    return element("figure", heading, element("ul", legend, class_="legend"), plot, class_="chart")


def short(value: float) -> str:
    """A figure with its significant digits: `0.0123`, `1.2e-05`, `3`."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.3g}"


def _frame(lines: Sequence[Line], from_zero: bool) -> Frame:
    steps = [step for line in lines for step, _ in line.points]
    low, high = _range(lines)
    low = min(0.0, low) if from_zero else low
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    left, right = min(steps), max(steps)
    if left == right:
        left, right = left - 1, right + 1
    return Frame(left, right, low if from_zero else low - margin, high + margin)


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """The lowest and highest figure, without the outermost 2 % of each line's points on either side."""
    ends: list[float] = []
    for line in lines:
        values = sorted(value for _, value in line.points)
        cut = len(values) // 50
        ends += (values[cut], values[-1 - cut])
        reach = max(line.errors, default=0.0)
        ends += (values[cut] - reach, values[-1 - cut] + reach)
    return min(ends), max(ends)


def _draw(line: Line, frame: Frame) -> list[Html]:
    places = [f"{frame.x(step)} {frame.y(value)}" for step, value in line.points]
    drawn = [element("path", d=f"M{' L'.join(places)}", class_=line.kind)]
    for (step, value), error in zip(line.points, line.errors, strict=False):
        x = frame.x(step)
        way = f"M{x} {frame.y(value - error)} V{frame.y(value + error)}"
        drawn.append(element("path", d=way, class_=f"{line.kind} error"))
    if line.errors or len(places) == 1:  # a single point is drawn as a dot
        dots = " ".join(f"M{place} h.01" for place in places)
        drawn.append(element("path", d=dots, class_=f"{line.kind} dot"))
    return drawn


def _grid(frame: Frame) -> Html:
    rows = " ".join(f"M0 {frame.y(value)} H{WIDTH}" for value in ticks(frame.bottom, frame.top))
    return element("path", d=rows, class_="grid")


def _labels(frame: Frame) -> list[Html]:
    rows = [
        element("span", short(value), class_="at-y", style=f"top:{frame.y(value) / HEIGHT * 100:.2f}%")
        for value in ticks(frame.bottom, frame.top)
    ]
    columns = [
        element("span", number(int(step)), class_="at-x", style=f"left:{frame.x(step) / WIDTH * 100:.2f}%")
        for step in ticks(frame.left, frame.right, 5)
        if step == int(step)
    ]
    return rows + columns


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers between low and high: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _in_words(lines: Sequence[Line]) -> str:
    told = (
        f"{line.label or 'it'} from {short(line.points[0][1])} to {short(line.points[-1][1])}"
        for line in lines
    )
    return ", ".join(told)
