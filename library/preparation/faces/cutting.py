"""A face cut out of its picture, and the name that says where it is: `<stem>[_NN]_cx_cy_w_h.png`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from library.data.buckets import Size
from library.data.pictures.images import resize
from library.options.face_tools import FaceOptions
from library.preparation.faces.face import Point
from library.preparation.faces.upright import TurnedFace, turned_about

_BOX = (255, 0, 0)  # of --debug


@dataclass(frozen=True)
class Cut:
    """How a picture becomes a cut-out.

    resized: (width, height) of the scaled picture.
    scale: of its sides.
    corner: (left, top) of the cut in it.
    size: of the cut.
    """

    resized: Size
    scale: float
    corner: tuple[int, int]
    size: Size


def cut_for(picture: Size, centre: Point, side: float, options: FaceOptions) -> Cut:
    """The cut of a face: around its middle, but within the picture, which is enlarged where it is too small.

    side: the face's larger one, in pixels.
    """
    size = _crop_size(side, options)
    if size is None:
        return Cut(picture, 1.0, (0, 0), picture)
    covering = max(size[0] / picture[0], size[1] / picture[1])
    wanted = 1.0 if options.resize_face_size is None else options.resize_face_size / side
    scale = covering if options.resize_fit else max(covering, wanted)
    width, height = (max(side, _rounded(full * scale)) for side, full in zip(size, picture, strict=True))
    left, top = (
        min(max(0, _rounded(middle * scale) - crop // 2), full - crop)
        for middle, crop, full in zip(centre, size, (width, height), strict=True)
    )
    return Cut((width, height), scale, (left, top), size)


def cut_out(pixels: np.ndarray, turned: TurnedFace, options: FaceOptions) -> tuple[Image.Image, str]:
    """The cut of a face, and the end of its name: `_cx_cy_w_h`, its middle and size in the cut.

    pixels: of the picture, uint8 RGB (height, width, 3).
    """
    face = turned.face
    if options.rotate:
        pixels = turned_about(pixels, face.centre, turned.turn)
    image = Image.fromarray(pixels)
    cut = cut_for(image.size, face.centre, face.side, options)
    (left, top), (width, height) = cut.corner, cut.size
    crop = resize(image, cut.resized)[top : top + height, left : left + width]
    x, y = (_rounded(middle * cut.scale) - edge for middle, edge in zip(face.centre, cut.corner, strict=True))
    face_width, face_height = (_rounded(side * cut.scale) for side in face.size)
    if options.debug:
        crop = _with_box(crop, (x - face_width // 2, y - face_height // 2), (face_width, face_height))
    return Image.fromarray(crop), f"_{x:04d}_{y:04d}_{face_width:04d}_{face_height:04d}"


def _crop_size(side: float, options: FaceOptions) -> Size | None:
    if options.crop_ratio is not None:
        width, height = (max(1, _rounded(side * ratio)) for ratio in options.crop_ratio)
        return width, height
    return options.crop_size


def _rounded(value: float) -> int:
    """Halves go up, as in sd-scripts."""
    return int(np.floor(value + 0.5))


def _with_box(pixels: np.ndarray, corner: tuple[int, int], size: Size) -> np.ndarray:
    import cv2

    end = corner[0] + size[0], corner[1] + size[1]
    return cv2.rectangle(pixels.copy(), corner, end, _BOX, max(1, min(pixels.shape[:2]) // 200))
