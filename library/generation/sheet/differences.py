"""How far the pictures of a run's saves are from those of the model it began with, and from one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from PIL import Image

LONGEST = 128  # pixels that pictures are compared in: what they show counts, not their grain

Pictures = Sequence[Sequence[Image.Image | None]]  # by prompt, then by seed


@dataclass(frozen=True)
class Standing:
    """A save among the others; None where there is nothing to compare.

    from_base: mean difference of its pictures from those without it, 0 (equal) to 1 (black and white).
    from_last: from those of the save before.
    variety: mean difference among its pictures of one prompt, of that without it: below 1 they have become
        more alike.
    """

    name: str
    from_base: float | None
    from_last: float | None
    variety: float | None


def compare(base: Pictures, saves: Sequence[tuple[str, Pictures]]) -> list[Standing]:
    """Each save's standing, in their order. All have pictures of the same prompts and seeds."""
    last: Pictures | None = None
    plain, found = _variety(base), list[Standing]()
    for name, pictures in saves:
        own = _variety(pictures)
        share = None if own is None or not plain else own / plain
        before = None if last is None else _mean_difference(last, pictures)
        found.append(Standing(name, _mean_difference(base, pictures), before, share))
        last = pictures
    return found


def difference(one: Image.Image, other: Image.Image) -> float:
    """The root of the mean squared difference of two pictures' values, 0 to 1."""
    pixels = [np.asarray(_small(picture), dtype=np.float64) / 255 for picture in (one, other)]
    return float(np.sqrt(np.mean((pixels[0] - pixels[1]) ** 2)))


def _small(picture: Image.Image) -> Image.Image:
    small = picture.convert("RGB")
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    return small


def _mean_difference(one: Pictures, other: Pictures) -> float | None:
    pairs = [
        (a, b)
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
        if a is not None and b is not None
    ]
    return fmean(difference(a, b) for a, b in pairs) if pairs else None


def _variety(pictures: Pictures) -> float | None:
    """The mean difference of two pictures of one prompt; None for one picture of each."""
    pairs = [
        pair for of_prompt in pictures for pair in combinations([p for p in of_prompt if p is not None], 2)
    ]
    return fmean(difference(a, b) for a, b in pairs if a.size == b.size) if pairs else None
