"""Which latents a run needs, each once, and the cache files they are kept in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from library.data.buckets import Size, letterbox
from library.data.caches.checks import ABSENT, Wanted, real_places
from library.data.caches.recipes import REASONS
from library.data.scan.records import Record
from library.data.views import View, centre_view
from library.latent_space import LatentSpace

# Raise it when an image file gives other pixels than before, or its pixels other latents.
CODE_VERSION = 1


@dataclass(frozen=True)
class Picture:
    """A picture to encode.

    view: how it is made from its image; not mirrored.
    flips: whether its mirror image is needed, too.
    has_mask: whether the image's alpha channel is needed.
    """

    view: View
    flips: bool
    has_mask: bool

    @property
    def image(self) -> Path:
        return self.view.record.image

    @property
    def bucket(self) -> Size:
        return self.view.record.fit.bucket

    @property
    def names(self) -> tuple[str, ...]:
        """The latents it needs, by their names in cache files."""
        return ("latents", "latents_flipped") if self.flips else ("latents",)

    def recipe(self) -> dict[str, object]:
        """How the image becomes pixels."""
        return {
            "bucket": list(self.bucket),
            "resized": list(self.view.resized),
            "crop": list(self.view.crop),
            "interpolation": self.view.record.subset.resize_interpolation,
            **({"hidden": True} if self.view.shows_hidden else {}),
        }


@dataclass(frozen=True)
class LatentFiles:
    """The cache files of latents, and what identifies the VAE that made them.

    suffix: of the family's files, "_sd" or "_sdxl".
    vae: an identity of the VAE's weights.
    precision: that the VAE computes in, such as "bfloat16".
    skip_check: whether files that are there are used without being verified.
    """

    suffix: str
    vae: str
    precision: str
    skip_check: bool = False
    settings: str = ""  # of the VAE, as far as weights do not show them

    def wanted(self, pictures: Sequence[Picture], latent_space: LatentSpace) -> list[Wanted]:
        """The file of each picture. When several would share a name, the first gets it and the others get one
        with their bucket in it, so that no picture overwrites another's file.
        """
        taken: set[Path] = set()
        images = real_places(picture.image for picture in pictures)
        cached = _cached_images(images, self.suffix)
        return [
            self._wanted(picture, image, latent_space, taken, cached)
            for picture, image in zip(pictures, images, strict=True)
        ]

    def _wanted(
        self, picture: Picture, image: Path, latent_space: LatentSpace, taken: set[Path], cached: set[Path]
    ) -> Wanted:
        paths = (image.with_name(image.stem + ending) for ending in self._endings(picture))
        order, path = next((order, path) for order, path in enumerate(paths) if path not in taken)
        taken.add(path)
        is_first = order == 0
        is_edited = is_first and image.with_name(image.stem) in cached
        return Wanted(
            path,
            {
                "version": CODE_VERSION,
                "vae": self.vae,
                "precision": self.precision,
                "settings": self.settings,
                **picture.recipe(),
            },
            _shapes(picture, latent_space),
            misshapen=REASONS["bucket"],
            image=image,
            beside=image,
            old_path=image.with_name(f"{image.stem}.npz") if is_first else None,
            absent=REASONS["image"] if is_edited else ABSENT,
            numbers={"original_size": picture.view.record.size},
        )

    def _endings(self, picture: Picture) -> Iterator[str]:
        """What may follow the image's stem in the file's name. sd-scripts looks for `_<size><suffix>.npz`, so
        what tells files apart comes after that. The last one is no other picture's.
        """
        plain = "_" + _size_text(picture.view.record.size) + self.suffix
        yield f"{plain}.npz"
        yield f"{plain}.{_size_text(picture.bucket)}.npz"
        what = repr((picture.image.name, picture.recipe())).encode(errors="replace")
        yield f"{plain}.{hashlib.blake2b(what, digest_size=4).hexdigest()}.npz"


def pictures_of(records: Sequence[Record]) -> tuple[list[Picture], list[int]]:
    """Every picture that the records need, once, and for each record the index of its picture."""
    pictures: list[Picture] = []
    index_of: dict[Hashable, int] = {}
    indices = []
    images = real_places(record.image for record in records)
    for number, (record, image) in enumerate(zip(records, images, strict=True)):
        has_mask = record.subset.alpha_mask and record.hint is None
        view = centre_view(record, index=number)
        picture = Picture(view, record.subset.flip_aug, has_mask)
        key = image, record.fit, record.subset.resize_interpolation, view.shows_hidden
        index = index_of.setdefault(key, len(pictures))
        if index == len(pictures):
            pictures.append(picture)
        else:
            pictures[index] = _for_both(pictures[index], picture)
        indices.append(index)
    return pictures, indices


def array_shape(name: str, bucket: Size, latent_space: LatentSpace) -> tuple[int, ...]:
    """The shape of an array in a cache file: (c, h/p, w/p) of a latent, (h, w) of a mask."""
    width, height = bucket
    return (height, width) if name == "alpha_mask" else latent_space.shape(width, height)


def file_arrays(picture: Picture, made: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a picture's cache file holds. Without an alpha channel, sd-scripts expects a mask of ones."""
    record = picture.view.record
    arrays = {
        **made,
        "original_size": np.array(record.size),
        "crop_ltrb": np.array(letterbox(picture.bucket, record.size)),
    }
    if picture.has_mask and "alpha_mask" not in made:
        arrays["alpha_mask"] = np.ones(picture.bucket[::-1], np.float32)
    return arrays


def _for_both(one: Picture, other: Picture) -> Picture:
    """One picture for two records. Its view is that of a record whose mask is loaded, if there is one."""
    seen = other if other.has_mask and not one.has_mask else one
    return replace(seen, flips=one.flips or other.flips)


def _shapes(picture: Picture, latent_space: LatentSpace) -> dict[str, tuple[int, ...]]:
    names = (*picture.names, "alpha_mask") if picture.has_mask else picture.names
    return {name: array_shape(name, picture.bucket, latent_space) for name in names}


def _cached_images(images: Sequence[Path], suffix: str) -> set[Path]:
    """The images, without their suffix, that have a latent file with a size in its name, whichever size."""
    sized_name = re.compile(rf"(.+)_\d{{4,}}x\d{{4,}}{re.escape(suffix)}\.npz")
    folders = {image.parent for image in images}
    paths = (path for folder in folders for path in folder.iterdir())
    matches = ((path, sized_name.fullmatch(path.name)) for path in paths)
    return {path.with_name(match[1]) for path, match in matches if match}


def _size_text(size: Size) -> str:
    return f"{size[0]:04d}x{size[1]:04d}"
