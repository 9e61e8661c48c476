"""Aspect-ratio buckets: which sizes there are, which one an image goes to, how it is resized and cropped.

The algorithms are sd-scripts' own, so that latents and step counts carry over. Sizes are (width, height) in
pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """How an image is fitted to its bucket: resized to `resized`, then cropped to `bucket`."""

    bucket: Size
    resized: Size


def bucket_resolutions(resolution: Size, *, shortest: int, longest: int, step: int) -> list[Size]:
    """All buckets of about the area of `resolution` with sides `shortest`..`longest` in multiples of `step`.

    `shortest` is rounded down and `longest` up to a multiple of `step`. Ascending by (width, height).
    """
    shortest, longest = shortest // step * step, math.ceil(longest / step) * step
    area = resolution[0] * resolution[1]
    square = int(math.sqrt(area) // step * step)
    sizes = {(square, square)} if square else set()
    for width in range(max(shortest, step), longest + 1, step):
        height = min(longest, area // width // step * step)
        if height >= max(shortest, step):
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def fit_to_list(size: Size, buckets: Sequence[Size]) -> Fit:
    """The bucket of the image's own size, else the one with the nearest aspect ratio (the first on ties). The
    image is resized to cover it; small images are enlarged.
    """
    if size in buckets:
        return Fit(size, size)
    aspect = size[0] / size[1]
    bucket = min(buckets, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))
    return Fit(bucket, cover(size, bucket))


def fit_without_enlarging(size: Size, *, area: int, step: int) -> Fit:
    """An image of at most `area` pixels keeps its size, a larger one shrinks to about `area`; the bucket has
    the largest sides inside it that are multiples of `step`.

    An image with a side below `step` (a bucket of zero in sd-scripts) is enlarged just enough to fill one
    step.
    """
    width, height = size
    resized = size if width * height <= area else _shrink(size, area, step)
    bucket = _floor(resized[0], step), _floor(resized[1], step)
    if bucket[0] > resized[0] or bucket[1] > resized[1]:
        resized = cover(size, bucket)
    return Fit(bucket, resized)


def _shrink(size: Size, area: int, step: int) -> Size:
    # One side is rounded to a multiple of `step`, the other follows from the aspect ratio. Of the two ways to
    # do it, the one whose bucket is nearer to the image's aspect ratio is taken.
    aspect = size[0] / size[1]
    width = math.sqrt(area * aspect)
    by_width = _floor(width + 0.5, step)
    by_width_aspect = by_width / _floor(by_width / aspect + 0.5, step)
    by_height = _floor(area / width + 0.5, step)
    by_height_aspect = _floor(by_height * aspect + 0.5, step) / by_height
    if abs(by_width_aspect - aspect) < abs(by_height_aspect - aspect):
        return by_width, int(by_width / aspect + 0.5)
    return int(by_height * aspect + 0.5), by_height


def _floor(length: float, step: int) -> int:
    return max(step, int(length) // step * step)


def cover(size: Size, target: Size) -> Size:
    """The smallest size with the image's aspect ratio that covers `target`, rounded to whole pixels."""
    width, height = size
    if width / height > target[0] / target[1]:
        scale = target[1] / height
    else:
        scale = target[0] / width
    return int(width * scale + 0.5), int(height * scale + 0.5)


def centre_crop(fit: Fit) -> tuple[int, int]:
    """(left, top) of the centre crop in the resized image."""
    return (fit.resized[0] - fit.bucket[0]) // 2, (fit.resized[1] - fit.bucket[1]) // 2


def random_crop(fit: Fit, rng: random.Random) -> tuple[int, int]:
    """(left, top) of a uniformly random crop in the resized image."""
    return rng.randint(0, fit.resized[0] - fit.bucket[0]), rng.randint(0, fit.resized[1] - fit.bucket[1])


def size_text(size: Size) -> str:
    """ "640x480", as messages write a size."""
    return f"{size[0]}x{size[1]}"


def aspect_error(bucket: Size, size: Size) -> float:
    """Aspect ratio (width / height) of the bucket minus the image's."""
    return bucket[0] / bucket[1] - size[0] / size[1]


def letterbox(bucket: Size, size: Size) -> tuple[float, float, float, float]:
    """`crop_ltrb` of latent cache files: (left, top, right, bottom) of the whole image fitted *into* the
    bucket.

    This is not the crop that training uses (see `Batch.sizes`); only the file format requires it.
    """
    aspect = size[0] / size[1]
    width: float
    height: float
    if bucket[0] / bucket[1] > aspect:
        width, height = bucket[1] * aspect, bucket[1]
    else:
        width, height = bucket[0], bucket[0] / aspect
    left, top = (bucket[0] - width) // 2, (bucket[1] - height) // 2
    return left, top, left + width, top + height
