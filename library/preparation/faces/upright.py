"""Faces however they are turned. A detector knows eyes and mouth of a face only while it is about upright, so
the picture is looked at in four turns, and twice more as the face then stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from library.preparation.faces.face import Face, Find, Point, apart

# CenterFace's angle is right within 5 degrees up to turns of 15 (measured); quarter turns leave up to 45.
REFINEMENTS = 2


@dataclass(frozen=True)
class TurnedFace:
    """A face, and how it is turned.

    face: as it looks upright; its centre is that in the picture.
    turn: degrees clockwise from upright.
    """

    face: Face
    turn: float


def faces_in(pixels: np.ndarray, find: Find, *, lowest: float) -> list[TurnedFace]:
    """The upright faces of a picture, uint8 RGB (height, width, 3), largest first. The eyes tell their turns.

    lowest: faces with a score below this are left out.
    """
    found = [face for face in find(pixels) if face.score >= lowest]
    return _largest_first([TurnedFace(face, face.angle) for face in found])


def turned_faces_in(pixels: np.ndarray, find: Find, *, lowest: float) -> list[TurnedFace]:
    """`faces_in` for faces that are turned in any way."""
    seen = [(face, quarter) for quarter in range(4) for face in find(np.rot90(pixels, quarter).copy())]
    seen.sort(key=lambda item: item[0].tilt)
    begun = [
        TurnedFace(face.moved(_from_quarter(pixels, quarter)), face.angle + 90 * quarter)
        for face, quarter in seen
    ]
    refined = [_refined(pixels, turned, find) for turned in _apart(begun)]
    sure = [turned for turned in refined if turned.face.score >= lowest]
    return _largest_first(_apart(sorted(sure, key=lambda turned: -turned.face.score)))


def turned_about(pixels: np.ndarray, centre: Point, angle: float) -> np.ndarray:
    """A picture turned about a point by degrees counterclockwise, of the same size; its borders mirror it."""
    import cv2

    size = pixels.shape[1], pixels.shape[0]
    middle = centre[0] - 0.5, centre[1] - 0.5  # OpenCV's 0 is the middle of a pixel
    matrix = cv2.getRotationMatrix2D(middle, angle, 1.0)
    return cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _refined(pixels: np.ndarray, turned: TurnedFace, find: Find) -> TurnedFace:
    """The same face, as it is found once it stands upright. One that is lost then stays as it is."""
    import cv2

    for _ in range(REFINEMENTS):
        centre, side = turned.face.centre, turned.face.side
        near = [
            face
            for face in find(turned_about(pixels, centre, turned.turn))
            if math.dist(face.centre, centre) < side / 2
        ]
        if not near:
            return turned
        face = max(near, key=lambda face: face.score)
        back = cv2.invertAffineTransform(cv2.getRotationMatrix2D(centre, turned.turn, 1.0))
        turned = TurnedFace(face.moved(back), turned.turn + face.angle)
    return turned


def _from_quarter(pixels: np.ndarray, quarter: int) -> np.ndarray:
    """The affine map, (2, 3), of a picture turned counterclockwise by so many quarters back to itself."""
    height, width = pixels.shape[:2]
    maps = (
        ((1, 0, 0), (0, 1, 0)),
        ((0, -1, width), (1, 0, 0)),
        ((-1, 0, width), (0, -1, height)),
        ((0, 1, 0), (-1, 0, height)),
    )
    return np.array(maps[quarter], np.float64)


def _apart(faces: list[TurnedFace]) -> list[TurnedFace]:
    turns = {id(turned.face): turned for turned in faces}
    return [turns[id(face)] for face in apart([turned.face for turned in faces])]


def _largest_first(faces: list[TurnedFace]) -> list[TurnedFace]:
    return sorted(faces, key=lambda turned: -turned.face.side)
