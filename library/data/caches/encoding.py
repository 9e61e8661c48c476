"""Pictures -> latents: images are decoded ahead in threads while the VAE works on batches of one size."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from library.data.caches.latent_files import Picture
from library.data.caches.recipes import image_content
from library.data.views import to_pixels
from library.problems import Problem, Problems, UserError
from library.randomness import keyed_generator

if TYPE_CHECKING:
    import torch

# Decoding and resizing leave Python to the other threads.
DECODERS = min(16, max(2, os.cpu_count() or 1))
# Pixels a thread decodes before it hands them over: handing over costs as much as decoding a small image.
PIXELS_PER_JOB = 2**16
MOST_PER_JOB = 16
JOBS_AHEAD = 3 * DECODERS

Encode = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
Work = Sequence[tuple[int, Picture]]


class Loaded(NamedTuple):
    """A decoded picture.

    key: of its pixels, for randomness. mask: of its alpha channel. content: of its image file.
    """

    number: int
    picture: Picture
    pixels: np.ndarray
    key: int
    mask: np.ndarray | None
    content: dict[str, Any]


class Made(NamedTuple):
    """An encoded picture: its number and its arrays, as cache files call them; which image file it is of."""

    number: int
    arrays: dict[str, np.ndarray]
    content: dict[str, Any]


class _Shot(NamedTuple):
    """A picture or its mirror image, waiting to be encoded."""

    loaded: Loaded
    name: str

    @property
    def flip(self) -> bool:
        return self.name == "latents_flipped"

    @property
    def pixels(self) -> np.ndarray:
        return self.loaded.pixels[:, ::-1] if self.flip else self.loaded.pixels

    def noise(self) -> np.ndarray:
        """What its latent is drawn from the VAE's posterior with."""
        import torch

        generator = keyed_generator(0, "cached posterior", self.loaded.key, int(self.flip))
        return torch.randn(self.loaded.picture.latent_shape, generator=generator).numpy()


@dataclass
class Encoder:
    """How pictures are encoded (see `cache_latents`), and what went wrong.

    problems: what stops the run. skipped: images that cannot be decoded, by the number of their picture, if
    such are left out. inexact: names of images that needed encode_exactly.
    """

    encode: Encode
    encode_exactly: Encode | None
    batch_size: int
    skip_bad: bool
    problems: Problems = field(default_factory=Problems)
    skipped: dict[int, list[Problem]] = field(default_factory=dict)
    inexact: list[str] = field(default_factory=list)

    def make(self, work: Work, advance: Callable[[], object], *, reads_content: bool) -> Iterator[Made]:
        """The pictures, encoded. Once there is a problem the rest is only decoded, to find every bad image.

        work: pictures with their numbers; those of one size should stand together. advance: called for each.
        reads_content: whether the image files' content is looked at.
        """
        arrays: dict[str, np.ndarray] = {}
        for batch in _batches(self._shots(work, advance, reads_content), self.batch_size):
            if self.problems.found:
                continue
            latents = self._encode(batch)
            if self.problems.found:
                continue
            for shot, latent in zip(batch, latents, strict=True):
                loaded = shot.loaded
                arrays[shot.name] = latent
                if shot.name == loaded.picture.names[-1]:
                    if loaded.mask is not None:
                        arrays["alpha_mask"] = loaded.mask
                    yield Made(loaded.number, arrays, loaded.content)
                    arrays = {}

    def _shots(self, work: Work, advance: Callable[[], object], reads_content: bool) -> Iterator[_Shot]:
        """Pictures, each followed by its mirror image if that is needed."""
        for number, loaded in _load_ahead(work, reads_content):
            advance()
            if isinstance(loaded, Loaded):
                yield from (_Shot(loaded, name) for name in loaded.picture.names)
            elif self.skip_bad:
                self.skipped[number] = loaded.problems
            else:
                self.problems.found.extend(loaded.problems)

    def _encode(self, batch: list[_Shot]) -> list[np.ndarray]:
        """Each one's latents, float32 (4, h/8, w/8), in memory of their own. Those that are not finite are
        problems.
        """
        import torch

        pixels = to_pixels([shot.pixels for shot in batch])
        noise = torch.from_numpy(np.stack([shot.noise() for shot in batch]))
        latents = _to_numpy(self.encode(pixels, noise))
        broken = _not_finite(latents)
        if broken and self.encode_exactly is not None:
            latents[broken] = _to_numpy(self.encode_exactly(pixels[broken], noise[broken]))
            self.inexact += [batch[index].loaded.picture.image.name for index in broken]
            broken = _not_finite(latents)
        for index in broken:
            fix = "use another VAE" if self.encode_exactly else "try --no_half_vae"
            image = batch[index].loaded.picture.image
            self.problems.add(image, "the VAE gives NaN or infinite latents for it", fix)
        return [latent.copy() for latent in latents]  # a part would keep its whole batch


def _to_numpy(latents: torch.Tensor) -> np.ndarray:
    return latents.detach().float().cpu().numpy()


def _not_finite(latents: np.ndarray) -> list[int]:
    if np.isfinite(latents).all():
        return []
    return [index for index, latent in enumerate(latents) if not np.isfinite(latent).all()]


def _batches(shots: Iterable[_Shot], batch_size: int) -> Iterator[list[_Shot]]:
    """Groups of at most `batch_size` of one size."""
    batch: list[_Shot] = []
    for shot in shots:
        if batch and (len(batch) == batch_size or shot.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch = []
        batch.append(shot)
    if batch:
        yield batch


def _load_ahead(work: Work, reads_content: bool) -> Iterator[tuple[int, Loaded | UserError]]:
    """Every picture with its number, in order."""

    def load(job: Work) -> list[tuple[int, Loaded | UserError]]:
        return [(number, _load(number, picture, reads_content)) for number, picture in job]

    with ThreadPoolExecutor(DECODERS) as pool:
        jobs = _jobs(work)
        waiting = deque(pool.submit(load, job) for job in islice(jobs, JOBS_AHEAD))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(load, job) for job in islice(jobs, 1))
            yield from done


def _jobs(work: Work) -> Iterator[Work]:
    """Parts of the work for one thread each; small pictures go together."""
    start = 0
    while start < len(work):
        width, height = work[start][1].bucket
        length = min(MOST_PER_JOB, max(1, PIXELS_PER_JOB // (width * height)))
        yield work[start : start + length]
        start += length


def _load(number: int, picture: Picture, reads_content: bool) -> Loaded | UserError:
    content: dict[str, Any] = {}
    try:
        if reads_content:
            with suppress(OSError):  # which opening the image will name
                content = image_content(picture.image)
        pixels, mask = picture.view.load()
    except UserError as error:
        return error
    mask = mask if picture.has_mask else None
    return Loaded(number, picture, pixels, zlib.crc32(pixels), mask, content)
