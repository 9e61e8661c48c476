"""A face in a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

Point = tuple[float, float]  # x, y in pixels; the picture's upper left corner is 0, 0


@dataclass(frozen=True)
class Face:
    """A face as a detector finds it.

    centre: of its box.
    size: (width, height) of the box, in pixels.
    score: how sure the detector is, 0 to 1.
    eyes: the left one in the picture, the right one.
    mouth: its middle.
    """

    centre: Point
    size: tuple[float, float]
    score: float
    eyes: tuple[Point, Point]
    mouth: Point

    @property
    def side(self) -> float:
        """The larger side of the box, which is called the size of a face."""
        return max(self.size)

    @property
    def angle(self) -> float:
        """Of the line through the eyes, in degrees; above 0 the right one in the picture is lower."""
        (left, top), (right, bottom) = self.eyes
        return math.degrees(math.atan2(bottom - top, right - left))

    @property
    def tilt(self) -> float:
        """How far it is from upright by eyes and mouth together, in degrees, 0 and more. What is taken for
        eyes and mouth in a face on its side is rarely level and upright at once.
        """
        x, y = np.mean(self.eyes, axis=0)
        down = math.degrees(math.atan2(self.mouth[1] - y, self.mouth[0] - x)) - 90
        return abs(self.angle) + abs((down + 180) % 360 - 180)

    def moved(self, matrix: np.ndarray) -> Face:
        """Its points and centre by an affine map, float (2, 3). The box keeps its size."""
        left, right, mouth, centre = (
            (float(x), float(y)) for x, y in _map([*self.eyes, self.mouth, self.centre], matrix)
        )
        return replace(self, eyes=(left, right), mouth=mouth, centre=centre)


Find = Callable[[np.ndarray], list[Face]]  # uint8 RGB, (height, width, 3) -> its faces


def apart(faces: Iterable[Face]) -> list[Face]:
    """The faces without those whose centre is in one before."""
    kept: list[Face] = []
    for face in faces:
        if all(math.dist(face.centre, other.centre) > other.side / 2 for other in kept):
            kept.append(face)
    return kept


def _map(points: list[Point], matrix: np.ndarray) -> np.ndarray:
    """(points, 2)"""
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]
