"""A sample's picture in an epoch: which part of the image, mirrored or not, in which colours, its mask."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from library.data.buckets import Size, centre_crop, random_crop
from library.data.config.specs import SubsetSpec
from library.data.pictures.augmentation import ColourShift, draw_colour_shift, draw_face_crop, face_of
from library.data.pictures.images import Geometry, load_hint, load_pixels, load_pixels_and_alpha
from library.data.pictures.masks import mask_from_alpha, mask_from_hint
from library.data.scan.records import Record
from library.randomness import keyed_random

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class View:
    """How an image becomes a training picture. index: its record's; resized, crop (left, top): in pixels."""

    index: int
    record: Record
    resized: Size
    crop: tuple[int, int]
    flip: bool
    colour: ColourShift | None = None

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.resized, self.crop, self.record.fit.bucket, self.flip)

    def load(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The pixels, uint8 (height, width, 3), and the mask, float32 (height, width) in 0..1, if it has one.

        Raises UserError when the image, or its conditioning image, cannot be decoded or has changed its size.
        """
        record, options = self.record, {"size": self.record.size, "colour": self.colour}
        options["interpolation"] = record.subset.resize_interpolation
        if record.hint is not None or not record.subset.alpha_mask:
            return load_pixels(record.image, self.geometry, **options), self.load_hint_mask()
        pixels, alpha = load_pixels_and_alpha(record.image, self.geometry, **options)
        return pixels, None if alpha is None else mask_from_alpha(alpha)

    def load_hint_mask(self) -> np.ndarray | None:
        """The mask that the conditioning image is, float32 (height, width) in 0..1; None without one."""
        record = self.record
        if record.hint is None:
            return None
        hint = load_hint(
            record.hint,
            self.geometry,
            image=record.image,
            image_size=record.size,
            interpolation=record.subset.resize_interpolation,
        )
        return mask_from_hint(hint)

    def sizes(self) -> tuple[int, int, int, int, int, int]:
        """A row of `Batch.sizes`."""
        (width, height), (left, top), bucket = self.record.size, self.crop, self.record.fit.bucket
        if self.flip:
            left = self.resized[0] - bucket[0] - left
        return height, width, top, left, bucket[1], bucket[0]


def centre_view(record: Record, *, index: int, flip: bool = False) -> View:
    """The picture without any draw: what is cached, and what validation looks at."""
    return View(index, record, record.fit.resized, centre_crop(record.fit), flip)


def make_view(record: Record, *, index: int, seed: int, epoch: int, sample: int) -> View:
    """The sample's picture in this epoch."""
    subset = record.subset
    if not varies(subset):
        return centre_view(record, index=index)
    rng = keyed_random(seed, "picture", epoch, sample)
    # Always drawn, so that turning one thing on leaves the others as they were.
    flips, colour_seed = rng.random() < 0.5, rng.getrandbits(64)
    resized, crop = _draw_crop(record, rng)
    colour = draw_colour_shift(random.Random(colour_seed)) if subset.color_aug else None
    return View(index, record, resized, crop, subset.flip_aug and flips, colour)


def varies(subset: SubsetSpec) -> bool:
    """Whether the subset's pictures depend on the draw."""
    return bool(subset.flip_aug or subset.random_crop or subset.color_aug or subset.face_crop_aug_range)


def changing_setting(subset: SubsetSpec) -> str | None:
    """The first setting under which a picture has more forms than itself and its mirror image, so that its
    latents cannot be cached; None when there is none.
    """
    return next(
        (key for key in ("random_crop", "color_aug", "face_crop_aug_range") if getattr(subset, key)), None
    )


def _draw_crop(record: Record, rng: random.Random) -> tuple[Size, tuple[int, int]]:
    """The size to resize to, and the crop's (left, top)."""
    subset, fit = record.subset, record.fit
    face = face_of(record.image) if subset.face_crop_aug_range else None
    if face is not None:
        return draw_face_crop(
            record.size,
            face,
            bucket=fit.bucket,
            factors=subset.face_crop_aug_range or (1.0, 1.0),
            rng=rng,
            random_crop=subset.random_crop,
        )
    return fit.resized, random_crop(fit, rng) if subset.random_crop else centre_crop(fit)


def to_pixels(images: list[np.ndarray]) -> torch.Tensor:
    """uint8 images of one size, (h, w, 3) -> (b, 3, h, w) float32 in -1..1."""
    import torch

    height, width, _ = images[0].shape
    pixels = np.empty((len(images), 3, height, width), np.float32)
    # Not torch, whose threads wait for cores that other threads are decoding on.
    for image, planes in zip(images, pixels, strict=True):
        np.divide(image.transpose(2, 0, 1), np.float32(127.5), out=planes)
    pixels -= 1
    return torch.from_numpy(pixels)
