"""A sample's picture in an epoch: which part of the image, mirrored or not, in which colours, its mask."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from library.data.buckets import Size, centre_crop, random_crop
from library.data.config.specs import SubsetSpec
from library.data.pictures.augmentation import ColourShift, draw_colour_shift, draw_face_crop, face_of
from library.data.pictures.holes import holes_from_alpha, holes_from_mask, random_holes
from library.data.pictures.images import Geometry, load_hint, load_pixels, load_pixels_and_alpha
from library.data.pictures.masks import mask_from_alpha, mask_from_hint
from library.data.scan.records import Record
from library.randomness import keyed_random

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class View:
    """How an image becomes a training picture.

    index: of the record.
    resized: (width, height) that the image is resized to, in pixels.
    crop: (left, top) of the bucket-sized crop in the resized image.
    flip: whether the picture is mirrored, after cropping.
    colour: a change of its colours, or None.
    """

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
        """The pixels, uint8 (height, width, 3), and the mask, float32 (height, width) in 0..1, or None.

        The mask is the conditioning image if there is one, else, with alpha_mask, the alpha channel.
        Raises UserError when either image cannot be decoded or has another size than when it was scanned.
        """
        record = self.record
        if record.hint is not None or not record.subset.alpha_mask:
            return self.load_pixels(), self.load_hint_mask()
        pixels, alpha = load_pixels_and_alpha(
            record.image,
            self.geometry,
            size=record.size,
            interpolation=record.subset.resize_interpolation,
            colour=self.colour,
        )
        return pixels, None if alpha is None else mask_from_alpha(alpha)

    def load_pixels(self) -> np.ndarray:
        """The pixels alone, as `load` gives them."""
        return load_pixels(
            self.record.image,
            self.geometry,
            size=self.record.size,
            interpolation=self.record.subset.resize_interpolation,
            colour=self.colour,
            shows_hidden=self.shows_hidden,
        )

    @property
    def shows_hidden(self) -> bool:
        """Whether what is painted anew stands, transparent, in the image."""
        return self.record.subset.inpainting_masks == "alpha"

    def load_holes(self, seed: int, epoch: int, sample: int) -> np.ndarray:
        """What an inpainting model paints anew, bool (height, width); drawn by the key of seed, epoch and
        sample unless a file has it. Raises UserError as `load`.
        """
        record = self.record
        if record.holes is not None:
            mask = self._load_beside(record.holes)
            return holes_from_mask(mask)
        if self.shows_hidden:
            _, alpha = load_pixels_and_alpha(record.image, self.geometry, size=record.size)
            return np.zeros(self.geometry.bucket[::-1], bool) if alpha is None else holes_from_alpha(alpha)
        return random_holes(record.fit.bucket, keyed_random(seed, "holes", epoch, sample))

    def load_hint(self) -> np.ndarray:
        """The conditioning image, uint8 (height, width, 3), resized, cropped and mirrored as the picture; its
        colours are never changed. There must be one.
        """
        assert self.record.hint is not None
        return self._load_beside(self.record.hint)

    def _load_beside(self, path: Path) -> np.ndarray:
        """An image that belongs to this one."""
        record = self.record
        return load_hint(
            path,
            self.geometry,
            image=record.image,
            image_size=record.size,
            interpolation=record.subset.resize_interpolation,
        )

    def load_hint_mask(self) -> np.ndarray | None:
        """The conditioning image as a mask, float32 (height, width) in 0..1; None when there is none."""
        return None if self.record.hint is None else mask_from_hint(self.load_hint())

    def sizes(self) -> tuple[int, int, int, int, int, int]:
        """A row of `Batch.sizes`."""
        (width, height), (left, top), bucket = self.record.size, self.crop, self.record.fit.bucket
        if self.flip:
            left = self.resized[0] - bucket[0] - left
        return height, width, top, left, bucket[1], bucket[0]


def centre_view(record: Record, *, index: int, flip: bool = False) -> View:
    """The picture without any random draw: what is cached, and what validation sees."""
    return View(index, record, record.fit.resized, centre_crop(record.fit), flip)


def make_view(record: Record, *, index: int, seed: int, epoch: int, sample: int) -> View:
    """The sample's picture in this epoch."""
    subset = record.subset
    if not varies(subset):
        return centre_view(record, index=index)
    rng = keyed_random(seed, "picture", epoch, sample)
    # Always drawn, so that turning one augmentation on leaves the draws of the others as they were.
    flips, colour_seed = rng.random() < 0.5, rng.getrandbits(64)
    resized, crop = _draw_crop(record, rng)
    colour = draw_colour_shift(random.Random(colour_seed)) if subset.color_aug else None
    return View(index, record, resized, crop, subset.flip_aug and flips, colour)


def varies(subset: SubsetSpec) -> bool:
    """Whether the subset's pictures differ from epoch to epoch."""
    return bool(subset.flip_aug or subset.random_crop or subset.color_aug or subset.face_crop_aug_range)


def picture_changing_setting(subset: SubsetSpec) -> str | None:
    """The first setting that gives a picture more forms than itself and its mirror image, so that its latents
    cannot be cached; None when there is none.
    """
    return next(
        (key for key in ("random_crop", "color_aug", "face_crop_aug_range") if getattr(subset, key)), None
    )


def _draw_crop(record: Record, rng: random.Random) -> tuple[Size, tuple[int, int]]:
    """The size to resize to, and the (left, top) of the crop."""
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

    pixels = _to_planes(images, 127.5)
    pixels -= 1
    return torch.from_numpy(pixels)


def to_hints(images: list[np.ndarray]) -> torch.Tensor:
    """uint8 conditioning images of one size, (h, w, 3) -> (b, 3, h, w) float32 in 0..1."""
    import torch

    return torch.from_numpy(_to_planes(images, 255.0))


def _to_planes(images: list[np.ndarray], divisor: float) -> np.ndarray:
    """(h, w, 3) each -> (b, 3, h, w) float32, divided by `divisor`.

    In numpy: torch's threads would wait for cores that other threads are decoding on.
    """
    height, width, _ = images[0].shape
    planes = np.empty((len(images), 3, height, width), np.float32)
    for image, plane in zip(images, planes, strict=True):
        np.divide(image.transpose(2, 0, 1), np.float32(divisor), out=plane)
    return planes
