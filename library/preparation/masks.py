"""Masks of pictures, white where their subject is: by transparency, by a plain background, or by a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from library.data.pictures.hint_kinds import alpha_of
from library.data.pictures.images import load_rgba
from library.options.mask_tools import MaskOptions
from library.preparation.pngs import write_pngs
from library.preparation.segmentation import Segmenter
from library.problems import Problems, UserError

PLAIN = 0.6  # share of the border that has the background's colour; the subject may be at the rest
MOST_TOUCHES = 4  # times that a subject reaches the border: once at each side. Patterns do so more often
_SHORTEST_TOUCH = 0.01  # of the border's length; less is noise
_STRIP = 2**20  # pixels whose colours are compared at a time

Find = Callable[[Image.Image], np.ndarray]  # RGB -> its mask, uint8 (height, width); 255: subject


def make_masks(options: MaskOptions) -> Problems:
    """Write the masks. Returns the problems of pictures without one.

    Raises UserError when nothing could be done.
    """
    segment = None
    if options.model is not None and options.by in ("auto", "model"):
        segment = Segmenter(options.model, options.value_range)
    return write_pngs(
        options.pictures,
        options.target,
        lambda path: make_mask(path, options, segment),
        overwrite=options.overwrite,
        what="mask",
    )


def make_mask(path: Path, options: MaskOptions, segment: Find | None = None) -> Image.Image:
    """The mask of a picture file, of the picture's size, grey.

    segment: the model, if one is given.
    Raises UserError when the file cannot be read, its background cannot be told or nothing is white.
    """
    if options.by == "alpha":
        mask = np.asarray(alpha_of(path))
    else:
        image, alpha = load_rgba(path)
        if options.by == "auto" and alpha is not None and np.asarray(alpha).min() < 255:
            mask = np.asarray(alpha)
        elif segment is not None:
            mask = segment(image)
        else:
            mask = _by_colour(image, path, options.tolerance)
    _refuse_empty(mask, path, "all of it is background")
    mask = shaped(mask, grow=options.grow, feather=options.feather)
    if options.invert:
        mask = 255 - mask
    _refuse_empty(mask, path, "no part of its mask is white")
    return Image.fromarray(mask)


@dataclass(frozen=True)
class Background:
    """What has the border's median colour and is connected with the border by it.

    where: bool, (height, width).
    share: how much of the border has that colour, 0 to 1.
    touches: how often something else reaches the border.
    """

    where: np.ndarray
    share: float
    touches: int


def background_of(pixels: np.ndarray, tolerance: float) -> Background:
    """The background of a picture, if it is plain.

    pixels: uint8 RGB, (height, width, 3).
    tolerance: the largest distance in CIELAB (CIE 1976) that counts as the border's colour.
    """
    import cv2

    height, width = pixels.shape[:2]
    depth = max(1, min(height, width) // 64)
    border = np.ones((height, width), bool)
    border[depth : height - depth, depth : width - depth] = False
    colour = np.median(_lab(pixels[border][None])[0], axis=0)
    rows = max(1, _STRIP // width)
    strips = [pixels[top : top + rows] for top in range(0, height, rows)]  # floats of all would be gigabytes
    near = np.concatenate([np.linalg.norm(_lab(strip) - colour, axis=-1) <= tolerance for strip in strips])
    # A frame of the colour around it all connects every part that reaches the border.
    framed = cv2.copyMakeBorder(near.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(framed, None, (0, 0), 2, flags=4)
    return Background(framed[1:-1, 1:-1] == 2, float(near[border].mean()), _touches(near))


def _touches(near: np.ndarray) -> int:
    """How many stretches of the outermost pixels, once around, are False; the shortest do not count."""
    ring = np.concatenate([near[0], near[1:-1, -1], near[-1, ::-1], near[-2:0:-1, 0]])
    ring = np.roll(ring, -int(ring.argmax()))  # begins with background
    steps = np.diff(np.concatenate([ring, [True]]).astype(np.int8))
    lengths = np.flatnonzero(steps == 1) - np.flatnonzero(steps == -1)
    return int((lengths > _SHORTEST_TOUCH * len(ring)).sum())


def shaped(mask: np.ndarray, *, grow: int, feather: float) -> np.ndarray:
    """A mask, uint8 (height, width), whose white part is larger by `grow` pixels, then blurred."""
    import cv2

    if grow:
        side = 2 * abs(grow) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        mask = cv2.dilate(mask, disc) if grow > 0 else cv2.erode(mask, disc)
    return cv2.GaussianBlur(mask, (0, 0), feather) if feather else mask


def _by_colour(image: Image.Image, path: Path, tolerance: float) -> np.ndarray:
    """255 where the background is not. Raises UserError when the border has no colour of its own."""
    found = background_of(np.asarray(image), tolerance)
    why = ""
    if found.share < PLAIN:
        why = f"{found.share:.0%} of its border, not {PLAIN:.0%}, have one colour (--tolerance {tolerance:g})"
    elif found.touches > MOST_TOUCHES:
        why = f"other colours reach its border {found.touches} times"
    if why:
        fix = "cut the subject out, give --model, or raise --tolerance"
        raise UserError.of(path, f"has no plain background: {why}", fix)
    return np.where(found.where, 0, 255).astype(np.uint8)


def _lab(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB, (height, width, 3) -> CIELAB, float32; lightness is 0 to 100."""
    import cv2

    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _refuse_empty(mask: np.ndarray, path: Path, cause: str) -> None:
    """Raises UserError when nothing is white: the picture would be trained on without learning from it."""
    if mask.max() < 128:
        raise UserError.of(path, cause, "choose another --by or --tolerance, or leave the picture out")
