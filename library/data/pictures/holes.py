"""What an inpainting model learns to paint anew: masks drawn at random, or of images and alpha channels.

Random masks are those that sd-scripts trains with: clouds, polygons, rectangles and ellipses. A hole is True.
"""

from __future__ import annotations

import math
import random

import numpy as np

from library.data.buckets import Size

# How often each shape is drawn, and which share of the picture it covers.
CLOUD, POLYGON, BOX = 0.40, 0.35, 0.25
CLOUD_SHARE, SHARE = (0.1, 0.3), (0.1, 0.6)
UNITED = 0.33  # of clouds, with a polygon or box
CORNERS = 6
COARSEST, FINEST = 3, 8  # places of a cloud's noise along the longer side
WHITE = 128  # from this level on a mask's pixel marks a hole, below it an alpha channel's


def random_holes(size: Size, rng: random.Random) -> np.ndarray:
    """Holes drawn at random, bool (height, width). size: (width, height)."""
    place = rng.random()
    if place < CLOUD:
        holes = _cloud(size, rng)
        return holes | _shape(size, rng) if rng.random() < UNITED else holes
    return _shape(size, rng)


def holes_from_mask(pixels: np.ndarray) -> np.ndarray:
    """Holes of a mask, uint8 RGB (height, width, 3) -> bool (height, width): where it is white."""
    return pixels.max(axis=-1) >= WHITE


def holes_from_alpha(alpha: np.ndarray) -> np.ndarray:
    """Holes of an alpha channel, uint8 (height, width) -> bool: where it is transparent."""
    return alpha < WHITE


def _shape(size: Size, rng: random.Random) -> np.ndarray:
    """One or two polygons, or a rectangle or ellipse."""
    return _polygons(size, rng) if rng.random() < POLYGON / (POLYGON + BOX) else _box(size, rng)


def _cloud(size: Size, rng: random.Random) -> np.ndarray:
    """Where smooth noise is highest."""
    import cv2

    width, height = size
    places = rng.randint(COARSEST, FINEST) / max(size)
    coarse = (max(2, round(height * places)), max(2, round(width * places)))
    noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(coarse, np.float32)
    smooth = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    return smooth >= np.quantile(smooth, 1 - rng.uniform(*CLOUD_SHARE))


def _polygons(size: Size, rng: random.Random) -> np.ndarray:
    """One or two polygons of six corners, which may reach over the edge."""
    import cv2

    holes, count = np.zeros(size[::-1], np.uint8), rng.randint(1, 2)
    share = rng.uniform(*SHARE) / count
    for _ in range(count):
        turns = [2 * math.pi * (corner + rng.random()) / CORNERS for corner in range(CORNERS)]
        arms = [rng.uniform(0.5, 1.0) for _ in turns]
        corners = np.array(
            [(arm * math.cos(t), arm * math.sin(t)) for arm, t in zip(arms, turns, strict=True)]
        )
        area = cv2.contourArea(corners.astype(np.float32))
        corners *= math.sqrt(share * math.prod(size) / area)
        middle = [rng.uniform(0.2, 0.8) * side for side in size]
        cv2.fillPoly(holes, [np.rint(corners + middle).astype(np.int32)], 1)
    return holes.astype(bool)


def _box(size: Size, rng: random.Random) -> np.ndarray:
    """A rectangle or an ellipse, whole."""
    import cv2

    (width, height), is_round = size, rng.random() < 0.5
    area = rng.uniform(*SHARE) * width * height / (math.pi / 4 if is_round else 1)
    stretch = math.exp(rng.uniform(-math.log(2), math.log(2)))
    wide = min(width, max(1, round(math.sqrt(area * width / height * stretch))))
    high = min(height, max(1, round(area / wide)))
    left, top = rng.randint(0, width - wide), rng.randint(0, height - high)
    holes = np.zeros((height, width), np.uint8)
    if is_round:
        box = ((left + (wide - 1) / 2, top + (high - 1) / 2), (wide, high), 0.0)
        cv2.ellipse(holes, box, 1, cv2.FILLED)
    else:
        holes[top : top + high, left : left + wide] = 1
    return holes.astype(bool)
