"""Pictures as taggers see them: on white, padded with white to a square, scaled, in the colours they want."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from library.data.pictures.images import load_image, resize

# Range -> what is subtracted and what is divided by, of values 0..255 in RGB.
RANGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "0..255": ((0.0,) * 3, (1.0,) * 3),
    "0..1": ((0.0,) * 3, (255.0,) * 3),
    "-1..1": ((127.5,) * 3, (127.5,) * 3),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "clip": (
        (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255),
        (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255),
    ),
}


@dataclass(frozen=True)
class InputForm:
    """What a tagger wants of a picture.

    side: of the square, in pixels.
    channels_first: (3, side, side) instead of (side, side, 3).
    is_bgr: blue stands first.
    value_range: of `RANGES`.
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
    less, by = RANGES[form.value_range]
    values: np.ndarray = pixels.astype(np.float32)
    if form.value_range != "0..255":
        values = (values - np.array(less, np.float32)) / np.array(by, np.float32)
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
