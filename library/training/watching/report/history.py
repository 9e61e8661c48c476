"""What a run's report shows: figures by step, and previews. A file beside the page keeps them for a resumed
run.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.files import whole_file
from library.pages.images import thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image

LOSS, VALIDATION, ERROR = "loss/current", "loss/validation", "loss/validation_error"
MOST_POINTS = 3000  # of a curve; beyond that, neighbours are averaged
MOST_MOMENTS = 16  # with previews; beyond that, every second one is dropped
MOST_BYTES = 2**26  # of a file
SIDE = 320  # pixels, of a preview's longer side
_PICTURE = re.compile(r"data:image/webp;base64,[A-Za-z0-9+/=]*")

Point = tuple[int, float]  # steps done, figure


@dataclass
class Moment:
    """Previews that were drawn at one time.

    step: steps done then.
    pictures: (number of the prompt, prompt, data URL of the picture).
    """

    step: int
    pictures: list[tuple[int, str, str]]


@dataclass
class History:
    """What was logged so far.

    curves: a figure's name in logs -> its points, in order.
    moments: previews, the oldest first.
    """

    curves: dict[str, list[Point]] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The latest step that has a figure."""
        return max((points[-1][0] for points in self.curves.values() if points), default=0)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add figures after `step` steps, in place of those that are there for this step: a resumed run
        measures again what came after its state was saved.
        """
        for name, value in values.items():
            points = self.curves.setdefault(name, [])
            if points and points[-1][0] == step:
                points.pop()
            points.append((step, float(value)))
            if len(points) > MOST_POINTS:
                self.curves[name] = _thinned(points)

    def show(self, step: int, pictures: Sequence[tuple[int, str, Image]]) -> None:
        """Add previews after `step` steps, as `add` does: (number of the prompt, prompt, picture)."""
        if self.moments and self.moments[-1].step == step:
            self.moments.pop()
        small = [(n, text, thumbnail(picture, SIDE)[0]) for n, text, picture in pictures]
        self.moments.append(Moment(step, small))
        if len(self.moments) > MOST_MOMENTS:
            newest = self.moments[-1]
            self.moments = [*self.moments[:-1:2], newest]  # the first and the newest are kept

    def up_to(self, step: int) -> History:
        """The history up to `step` steps: a run that is resumed there repeats what came later."""
        curves = {name: [p for p in points if p[0] <= step] for name, points in self.curves.items()}
        moments = [moment for moment in self.moments if moment.step <= step]
        return History({name: points for name, points in curves.items() if points}, moments)

    def with_later(self, other: History) -> History:
        """This history with what the other one has of later steps, figure by figure."""
        curves = {
            name: points + [point for point in other.curves.get(name, []) if point[0] > points[-1][0]]
            for name, points in self.curves.items()
        }
        last = self.moments[-1].step if self.moments else -1
        moments = [moment for moment in other.moments if moment.step > last]
        return History(other.curves | curves, self.moments + moments)

    def summary(self) -> dict[str, Any]:
        """What a queue's page tells of the run: the smoothed loss, the lowest of validation, and the last
        previews.
        """
        losses, measured = self.curves.get(LOSS, []), self.curves.get(VALIDATION, [])
        lowest = min(measured, key=lambda point: point[1], default=(0, None))
        return {
            "step": self.step,
            "loss": smoothed(losses)[-1][1] if losses else None,
            "lowest": lowest[1],
            "lowest_step": lowest[0],
            "pictures": self.moments[-1].pictures if self.moments else [],
        }

    def text(self) -> str:
        """The history as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def save(self, path: Path) -> None:
        """Write the history to a file, whole or not at all."""
        with whole_file(path, flush=False) as temporary:
            temporary.write_text(self.text(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> History:
        """What `save` wrote; an empty history if there is no such file or it cannot be read."""
        try:
            if not path.is_file() or path.stat().st_size > MOST_BYTES:
                return cls()
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            curves = {
                name: [(int(s), float(v)) for s, v in points]
                for name, points in found["curves"].items()
                if points
            }
            moments = [Moment(int(m["step"]), list(map(_picture, m["pictures"]))) for m in found["moments"]]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls()
        return cls(curves, moments)


def _picture(found: Any) -> tuple[int, str, str]:
    """A preview in a file. Raises ValueError or TypeError when it is none: a page shows what stands there."""
    number, prompt, url = found
    if not isinstance(prompt, str) or not _PICTURE.fullmatch(url):
        raise ValueError("no preview")
    return int(number), prompt, url


def smoothed(points: Sequence[Point]) -> list[Point]:
    """An exponential moving average over about 3 % of the points, at least ten, without the bias towards its
    initial 0 (Kingma and Ba 2015, section 3).
    """
    keep = 1 - 1 / max(10.0, 0.03 * len(points))
    average, result = 0.0, []
    for number, (step, value) in enumerate(points, 1):
        average = keep * average + (1 - keep) * value
        result.append((step, average / (1 - keep**number)))
    return result


def _thinned(points: list[Point]) -> list[Point]:
    """About MOST_POINTS / 2 points, evenly over the steps: the mean of each stretch, at its last step."""
    first, span = points[0][0], points[-1][0] - points[0][0] + 1
    stretches: dict[int, list[Point]] = {}
    for step, value in points:
        stretches.setdefault((step - first) * (MOST_POINTS // 2) // span, []).append((step, value))
    return [(some[-1][0], statistics.fmean(value for _, value in some)) for some in stretches.values()]
