"""What the pixels of a picture tell about its quality: blur, exposure, contrast and compression.

All of it is measured on grey values (ITU-R BT.601), 0 to 255. Percentiles leave out 1 % at both ends, so that
a few pixels decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 512  # pixels of the longer side at which blur and exposure are judged: what a model is trained on
# The second derivative of an edge blurred by a Gaussian of s pixels is 0.24 / s^2 of its height at most:
# an edge of one pixel has about 1, s = 1 has 0.24 and s = 2 has 0.06.
BLURRED = 0.08
DARK, BRIGHT = 110, 145  # the lightest grey of a dark picture, the darkest of a bright one
FLAT = 40  # greys between the darkest and the lightest of a picture without contrast
BLOCKY = 1.25  # steps at the borders of JPEG's blocks of 8 x 8, by those inside them; photographs have 1.0
BLOCK = 8
MOST = 1024  # pixels a side that are searched for blocks


@dataclass(frozen=True)
class Measures:
    """sharpness: the steepest change of slope, as a share of the contrast; 1 is an edge of one pixel.
    darkest, lightest: the 1st and 99th percentile of grey, 0 to 255.
    blockiness: steps at the borders of blocks by those inside them; 1 without compression.
    """

    sharpness: float
    darkest: float
    lightest: float
    blockiness: float

    def flags(self) -> list[str]:
        """What is remarkable, in words of the page."""
        contrast = self.lightest - self.darkest
        found = {
            "blurred": contrast >= FLAT and self.sharpness < BLURRED,
            "dark": self.lightest < DARK,
            "bright": self.darkest > BRIGHT,
            "low contrast": contrast < FLAT,
            "compressed": self.blockiness > BLOCKY,
        }
        return [name for name, holds in found.items() if holds]


def measure(image: Image.Image) -> Measures:
    """The measures of an RGB picture."""
    grey = image.convert("L")
    blockiness = _blockiness(np.asarray(grey.crop((0, 0, MOST, MOST) if min(grey.size) > MOST else None)))
    grey.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32)
    darkest, lightest = (float(value) for value in np.percentile(values, (1, 99)))
    return Measures(_steepest(values) / max(lightest - darkest, 1.0), darkest, lightest, blockiness)


def _steepest(grey: np.ndarray) -> float:
    """The 99.9th percentile of second derivatives along rows and columns, of (height, width) float32."""
    found = [np.abs(np.diff(grey, 2, axis=axis)).ravel() for axis in (0, 1) if grey.shape[axis] > 2]
    return float(np.percentile(np.concatenate(found), 99.9)) if found else 0.0


def _blockiness(grey: np.ndarray) -> float:
    """Mean step between neighbours on two sides of a border of blocks, by that of all other neighbours; the
    same is done with borders half a block aside, which keeps regular patterns out.
    """
    ratios = []
    for values in (grey, grey.T):
        if values.shape[1] < 4 * BLOCK:
            return 1.0
        steps = np.abs(np.diff(values.astype(np.int16), axis=1)).mean(axis=0)
        at = np.arange(len(steps)) % BLOCK
        others = steps[at != BLOCK - 1].mean()
        ratios.append((steps[at == BLOCK - 1].mean() + 0.5) / (others + 0.5))
    return float(min(ratios))  # in both directions, as JPEG's are
