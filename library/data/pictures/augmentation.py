"""Augmentations drawn anew each time a picture is used: a shift of its colours, a crop around its face."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from library.data.buckets import Size, cover

COLOUR_SHIFT_RATE = 0.33
LARGEST_HUE_SHIFT = 8.0
GAMMAS = (0.95, 1.05)

Face = tuple[int, int, int, int]  # centre x, centre y, width, height, in pixels of the upright image


@dataclass(frozen=True)
class ColourShift:
    """A change of hue or of gamma.

    hue: degrees / 2, as OpenCV counts them.
    gamma: an exponent for values of 0..255.
    """

    hue: float | None = None
    gamma: float | None = None


def draw_colour_shift(rng: random.Random) -> ColourShift | None:
    """`color_aug`: one picture in three is changed, in hue or in gamma."""
    if rng.random() >= COLOUR_SHIFT_RATE:
        return None
    if rng.random() < 0.5:
        return ColourShift(hue=rng.uniform(-LARGEST_HUE_SHIFT, LARGEST_HUE_SHIFT))
    return ColourShift(gamma=rng.uniform(*GAMMAS))


def apply_colour_shift(pixels: np.ndarray, shift: ColourShift | None) -> np.ndarray:
    """uint8 RGB, (height, width, 3) -> the same, changed.

    hue: rotated; saturation and value stay.
    gamma: value ** gamma on 0..255, clipped, so it also makes pictures brighter (above 1) or darker.
    """
    if shift is None:
        return pixels
    if shift.hue is not None:
        pixels = _turn_hue(pixels, 2 * shift.hue)
    if shift.gamma is not None:
        table = np.arange(256.0) ** shift.gamma
        pixels = (table.clip(0, 255) + 0.5).astype(np.uint8)[pixels]
    return pixels


def _turn_hue(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """In floating point, because 8-bit hues are two degrees apart."""
    import cv2

    hsv = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)  # hue in 0..360
    hsv[..., 0] = (hsv[..., 0] + degrees) % 360
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255 + 0.5).astype(np.uint8)


def face_of(path: Path | str) -> Face | None:
    """The face that a file name ends with, `<name>_<cx>_<cy>_<w>_<h>`, or None."""
    name, *numbers = Path(path).stem.rsplit("_", 4)
    if len(numbers) != 4 or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    cx, cy, width, height = map(int, numbers)
    return (cx, cy, width, height) if name and width and height else None


def draw_face_crop(
    size: Size,
    face: Face,
    bucket: Size,
    factors: tuple[float, float],
    rng: random.Random,
    *,
    random_crop: bool = False,
) -> tuple[Size, tuple[int, int]]:
    """`face_crop_aug_range`: (size to resize to, (left, top) of the crop in it) for an image of `size`.

    A factor is drawn uniformly from `factors`. The image is scaled so that the face's longer side becomes the
    bucket's shorter side divided by it; but the image always covers the bucket, and is enlarged no further
    than that takes.

    The crop is centred on the face, as far as the image reaches. With random_crop the face is anywhere in
    it; a face larger than the crop is centred.
    """
    covering = cover(size, bucket)
    smallest = max(covering[0] / size[0], covering[1] / size[1])
    wanted = min(bucket) / (rng.uniform(*factors) * max(face[2:]))
    scale = min(max(wanted, smallest), max(1.0, smallest))
    resized = covering if scale == smallest else (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))
    left, top = (
        _place_crop(
            face[axis] * resized[axis] / size[axis],
            face[axis + 2] * resized[axis] / size[axis],
            crop=bucket[axis],
            room=resized[axis] - bucket[axis],
            rng=rng if random_crop else None,
        )
        for axis in (0, 1)
    )
    return resized, (left, top)


def _place_crop(centre: float, length: float, *, crop: int, room: int, rng: random.Random | None) -> int:
    """Where the crop begins on one axis, 0..room. centre, length: of the face in the resized image."""
    middle = min(max(int(centre - crop / 2 + 0.5), 0), room)
    if rng is None:
        return middle
    # From the crop that ends where the face ends to the one that begins where it begins.
    first = min(max(int(centre + length / 2 - crop + 0.5), 0), room)
    last = min(max(int(centre - length / 2), 0), room)
    return rng.randint(first, last) if first <= last else middle
