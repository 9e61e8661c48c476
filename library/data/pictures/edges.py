"""Edges of pictures, as ControlNets are shown them."""

from __future__ import annotations

import numpy as np


def canny(pixels: np.ndarray, low: int, high: int) -> np.ndarray:
    """Edges, uint8 (height, width, 3), white on black (Canny 1986, doi:10.1109/TPAMI.1986.4767851).

    pixels: uint8 (height, width, 3), RGB.
    low, high: of the brightness' gradient; edges begin above the second and go on above the first.
    """
    import cv2

    edges = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), low, high)
    return np.repeat(edges[:, :, None], 3, axis=2)
