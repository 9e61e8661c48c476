"""Pictures as taggers see them: on white, padded with white to a square, scaled, in the colours they want."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from library.data.pictures.images import load_image, resize
from library.preparation.onnx_models import in_range


@dataclass(frozen=True)
class InputForm:
    """What a tagger wants of a picture.

    side: of the square, in pixels.
    channels_first: (3, side, side) instead of (side, side, 3).
    is_bgr: blue stands first.
    value_range: of `RANGES` in onnx_models.py.
    scaling: how the square is scaled.
    """

    side: int
    channels_first: bool
    is_bgr: bool
    value_range: str
    scaling: Literal["sd-scripts", "bicubic"]


@dataclass(frozen=True)
class Seen:
    """What a tagger sees of a picture.

    values: float32, as the model's input without the batch.
    size: (width, height) of the upright picture.
    """

    values: np.ndarray
    size: tuple[int, int]


def read_picture(path: Path, form: InputForm) -> Seen:
    """A picture as the tagger sees it. Raises UserError when it cannot be decoded."""
    image = load_image(path)
    return Seen(to_input(image, form), image.size)


def to_input(image: Image.Image, form: InputForm) -> np.ndarray:
    """float32, (side, side, 3) or (3, side, side)."""
    square, size = _padded(image), (form.side, form.side)
    if form.scaling == "bicubic":
        pixels = np.asarray(square.resize(size, Image.Resampling.BICUBIC))
    else:
        pixels = resize(square, size)
    values = in_range(pixels, form.value_range)
    if form.is_bgr:
        values = values[..., ::-1]
    return np.ascontiguousarray(values.transpose(2, 0, 1) if form.channels_first else values)


def _padded(image: Image.Image) -> Image.Image:
    """A square with the picture in its middle; an odd pixel is on the right or below."""
    side = max(image.size)
    if image.width == image.height:
        return image
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
