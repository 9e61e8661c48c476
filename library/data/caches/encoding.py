"""Pictures -> latents: threads decode images ahead while the VAE encodes batches of one size."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from library.data.caches.latent_files import Picture
from library.data.caches.recipes import Recipe, image_content
from library.data.views import to_pixels
from library.latent_space import LatentSpace
from library.problems import Problem, Problems, UserError
from library.randomness import keyed_generator

if TYPE_CHECKING:
    import torch

# Decoding and resizing release Python's lock, so threads run side by side.
DECODERS = min(16, max(2, os.cpu_count() or 1))
# Pixels that a thread decodes before it hands them over: a handover costs as much as decoding a small image.
PIXELS_PER_JOB = 2**16
MOST_PER_JOB = 16
JOBS_AHEAD = 3 * DECODERS

Encode = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
Work = Sequence[tuple[int, Picture]]


class DecodedPicture(NamedTuple):
    """A picture with its pixels, ready to be encoded.

    number: the picture's, among those of the run.
    pixels: uint8 (h, w, 3).
    key: a hash of the pixels, which the posterior's noise is keyed by.
    mask: float32 (h, w) of its alpha channel, or None.
    content: the part of its recipe that says what its image file holds.
    """

    number: int
    picture: Picture
    pixels: np.ndarray
    key: int
    mask: np.ndarray | None
    content: Recipe


class EncodedPicture(NamedTuple):
    """A picture's latents.

    number: the picture's, among those of the run.
    arrays: what its cache file holds of it, by the names used there.
    content: the part of its recipe that says what its image file holds.
    """

    number: int
    arrays: dict[str, np.ndarray]
    content: Recipe


class _Exposure(NamedTuple):
    """A picture or its mirror image, waiting to be encoded. name: of its latent in cache files."""

    decoded: DecodedPicture
    name: str

    @property
    def flip(self) -> bool:
        return self.name == "latents_flipped"

    @property
    def pixels(self) -> np.ndarray:
        return self.decoded.pixels[:, ::-1] if self.flip else self.decoded.pixels

    def noise(self, latent_space: LatentSpace) -> np.ndarray:
        """The noise that its latent is sampled from the VAE's posterior with, (c, h/p, w/p)."""
        import torch

        shape = latent_space.shape(*self.decoded.picture.bucket)
        generator = keyed_generator(0, "cached posterior", self.decoded.key, int(self.flip))
        return torch.randn(shape, generator=generator).numpy()


@dataclass
class Encoder:
    """Encodes pictures (see `cache_latents`) and collects what goes wrong.

    problems: what stops the run.
    skipped: why images are left out that cannot be decoded, by the number of their picture, with skip_bad.
    inexact: names of images that needed encode_exactly.
    """

    encode: Encode
    encode_exactly: Encode | None
    latent_space: LatentSpace
    batch_size: int
    skip_bad: bool
    problems: Problems = field(default_factory=Problems)
    skipped: dict[int, list[Problem]] = field(default_factory=dict)
    inexact: list[str] = field(default_factory=list)

    def make(
        self, work: Work, advance: Callable[[], object], *, reads_content: bool
    ) -> Iterator[EncodedPicture]:
        """The pictures, encoded. After the first problem the rest is only decoded, to find every bad image.

        work: pictures with their numbers, sorted by size so that batches are full.
        advance: called for each picture.
        reads_content: whether the image files' content is needed, for recipes.
        """
        arrays: dict[str, np.ndarray] = {}
        for batch in _batches(self._exposures(work, advance, reads_content), self.batch_size):
            if self.problems.found:
                continue
            latents = self._encode(batch)
            if self.problems.found:
                continue
            for exposure, latent in zip(batch, latents, strict=True):
                decoded = exposure.decoded
                arrays[exposure.name] = latent
                if exposure.name == decoded.picture.names[-1]:
                    if decoded.mask is not None:
                        arrays["alpha_mask"] = decoded.mask
                    yield EncodedPicture(decoded.number, arrays, decoded.content)
                    arrays = {}

    def _exposures(
        self, work: Work, advance: Callable[[], object], reads_content: bool
    ) -> Iterator[_Exposure]:
        """Pictures, each followed by its mirror image if that is needed."""
        for number, decoded in _decode_ahead(work, reads_content):
            advance()
            if isinstance(decoded, DecodedPicture):
                yield from (_Exposure(decoded, name) for name in decoded.picture.names)
            elif self.skip_bad:
                self.skipped[number] = decoded.problems
            else:
                self.problems.found.extend(decoded.problems)

    def _encode(self, batch: list[_Exposure]) -> list[np.ndarray]:
        """A latent for each, float32 (c, h/p, w/p), in memory of its own. Latents that are not finite are
        problems.
        """
        import torch

        pixels = to_pixels([exposure.pixels for exposure in batch])
        noise = torch.from_numpy(np.stack([exposure.noise(self.latent_space) for exposure in batch]))
        latents = _to_numpy(self.encode(pixels, noise))  # (b, c, h/p, w/p)
        broken = _not_finite(latents)
        if broken and self.encode_exactly is not None:
            latents[broken] = _to_numpy(self.encode_exactly(pixels[broken], noise[broken]))
            self.inexact += [batch[index].decoded.picture.image.name for index in broken]
            broken = _not_finite(latents)
        for index in broken:
            fix = "use another VAE" if self.encode_exactly else "try --no_half_vae"
            image = batch[index].decoded.picture.image
            self.problems.add(image, "the VAE gives NaN or infinite latents for it", fix)
        return [latent.copy() for latent in latents]  # a view would keep the whole batch in memory


def _to_numpy(latents: torch.Tensor) -> np.ndarray:
    return latents.detach().float().cpu().numpy()


def _not_finite(latents: np.ndarray) -> list[int]:
    if np.isfinite(latents).all():
        return []
    return [index for index, latent in enumerate(latents) if not np.isfinite(latent).all()]


def _batches(exposures: Iterable[_Exposure], batch_size: int) -> Iterator[list[_Exposure]]:
    """Groups of at most `batch_size` of one size."""
    batch: list[_Exposure] = []
    for exposure in exposures:
        if batch and (len(batch) == batch_size or exposure.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch = []
        batch.append(exposure)
    if batch:
        yield batch


def _decode_ahead(work: Work, reads_content: bool) -> Iterator[tuple[int, DecodedPicture | UserError]]:
    """Every picture with its number, in order."""

    def decode(job: Work) -> list[tuple[int, DecodedPicture | UserError]]:
        return [(number, _decode(number, picture, reads_content)) for number, picture in job]

    with ThreadPoolExecutor(DECODERS) as pool:
        jobs = _jobs(work)
        waiting = deque(pool.submit(decode, job) for job in islice(jobs, JOBS_AHEAD))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(decode, job) for job in islice(jobs, 1))
            yield from done


def _jobs(work: Work) -> Iterator[Work]:
    """The work in parts for one thread each; small pictures go together."""
    start = 0
    while start < len(work):
        width, height = work[start][1].bucket
        length = min(MOST_PER_JOB, max(1, PIXELS_PER_JOB // (width * height)))
        yield work[start : start + length]
        start += length


def _decode(number: int, picture: Picture, reads_content: bool) -> DecodedPicture | UserError:
    content: Recipe = {}
    try:
        if reads_content:
            with suppress(OSError):  # opening the image raises it again, with the file's name
                content = image_content(picture.image)
        pixels, mask = picture.view.load()
    except UserError as error:
        return error
    mask = mask if picture.has_mask else None
    return DecodedPicture(number, picture, pixels, zlib.crc32(pixels.data), mask, content)
