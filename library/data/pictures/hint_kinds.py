"""Hints made of pictures themselves: edges, lines, blurred and small copies, grey, masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from library.data.pictures.images import load_image, load_rgba
from library.options.hint_tools import HintKind, HintOptions
from library.problems import UserError

Draw = Callable[[np.ndarray], np.ndarray]  # uint8 RGB (height, width, 3) -> the hint, of the same shape


def make_hint(path: str, options: HintOptions) -> Image.Image:
    """The hint of a picture file, of the picture's size. Raises UserError when it cannot be made."""
    if options.kind == "mask":
        return mask_of(path)
    return Image.fromarray(_drawers(options)[options.kind](np.asarray(load_image(path))))


def _drawers(options: HintOptions) -> dict[HintKind, Draw]:
    return {
        "canny": partial(canny, low=options.low, high=options.high),
        "line": lines,
        "blur": partial(blurred, radius=options.radius),
        "downscale": partial(coarse, factor=options.factor),
        "grey": grey,
    }


def mask_of(path: str) -> Image.Image:
    """What is opaque in a picture file, white on black. Raises UserError when it has no transparency."""
    return alpha_of(path).convert("RGB")


def alpha_of(path: Path | str) -> Image.Image:
    """What is opaque in a picture file, mode L. Raises UserError when it has no transparency."""
    _, alpha = load_rgba(path)
    if alpha is None:
        raise UserError.of(path, "has no transparent part to make a mask of", "cut the background out")
    return alpha


def canny(pixels: np.ndarray, low: int, high: int) -> np.ndarray:
    """Edges, white on black (Canny 1986, doi:10.1109/TPAMI.1986.4767851).

    low, high: of the brightness' gradient; edges begin above the second and go on above the first.
    """
    import cv2

    return _as_rgb(cv2.Canny(_brightness(pixels), low, high))


def lines(pixels: np.ndarray) -> np.ndarray:
    """Soft lines, white on black: how much the brightness changes at a place, against where it does most."""
    import cv2

    smooth = cv2.GaussianBlur(_brightness(pixels).astype(np.float32), (0, 0), 1)
    slope = np.hypot(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1))
    most = float(np.quantile(slope, 0.995)) or float(slope.max()) or 1.0
    return _as_rgb((slope / most * 255).clip(0, 255).round().astype(np.uint8))


def blurred(pixels: np.ndarray, radius: float) -> np.ndarray:
    """A blurred copy. radius: deviation of the blur, in pixels."""
    import cv2

    return cv2.GaussianBlur(pixels, (0, 0), radius)


def coarse(pixels: np.ndarray, factor: int) -> np.ndarray:
    """A copy made smaller and large again. factor: how many pixels become one."""
    import cv2

    height, width = pixels.shape[:2]
    small = cv2.resize(
        pixels, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def grey(pixels: np.ndarray) -> np.ndarray:
    """Its brightness alone, for ControlNets that colour."""
    return _as_rgb(_brightness(pixels))


def _brightness(pixels: np.ndarray) -> np.ndarray:
    """uint8 (height, width)"""
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _as_rgb(channel: np.ndarray) -> np.ndarray:
    return np.repeat(channel[:, :, None], 3, axis=2)
