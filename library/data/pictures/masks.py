"""How much each part of a picture counts in the loss: masks from conditioning images or alpha channels."""

from __future__ import annotations

import numpy as np


def mask_from_hint(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB, (height, width, 3) -> float32, (height, width), 0 to 1: the red channel."""
    return pixels[..., 0].astype(np.float32) / 255


def mask_from_alpha(alpha: np.ndarray) -> np.ndarray:
    """uint8, (height, width) -> float32, 0 to 1: what is transparent does not count."""
    return alpha.astype(np.float32) / 255


def latent_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask, float32 (height, width), shrunk to the (height, width) of its latent by averaging."""
    import cv2

    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_AREA)
