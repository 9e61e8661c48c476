"""Latents of every image, encoded once before training and kept in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from library.data.buckets import Size, centre_crop
from library.data.dataset import LATENT_CHANNELS, PIXELS_PER_LATENT, View, to_pixels
from library.data.training_data import TrainingData
from library.problems import Problems
from library.randomness import keyed_generator

if TYPE_CHECKING:
    import torch

DECODERS = 4  # threads; decoding and resizing leave Python to the others
IMAGES_AHEAD = 16

Encode = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


@dataclass
class LatentCache:
    """(index of a record, mirrored) -> its latent, (4, h/8, w/8) float32, scaled, on the CPU."""

    latents: dict[tuple[int, bool], torch.Tensor]

    def __getitem__(self, key: tuple[int, bool]) -> torch.Tensor:
        return self.latents[key]

    def __len__(self) -> int:
        return len(self.latents)


def cache_latents(
    data: TrainingData, encode: Encode, *, batch_size: int, seed: int, progress: bool = True
) -> LatentCache:
    """Encode every image, and its mirror image where flip_aug asks for it; images are decoded ahead while
    `encode` works.

    encode: (pixels (b, 3, h, w) in -1..1, noise (b, 4, h/8, w/8)) -> scaled latents (b, 4, h/8, w/8). The
    noise depends on seed, record and mirroring alone, so neither batch size nor order changes a latent.

    Raises UserError with every image that cannot be decoded and every one whose latent is not finite.
    """
    from tqdm import tqdm

    problems = Problems()
    cache = LatentCache({})
    with tqdm(total=data.image_count, desc="caching latents", unit="img", disable=not progress) as bar:
        for batch in _batches(_decode_ahead(_by_size(data), problems, bar.update), batch_size):
            if not problems.found:  # the rest is decoded all the same, to find every bad image
                _encode_batch(batch, encode, cache, seed, problems)
    problems.raise_if_any()
    return cache


def _by_size(data: TrainingData) -> list[View]:
    """Every record's centre crop; records of one size stand together."""
    views = [View(i, record, centre_crop(record.fit), False) for i, record in enumerate(data.records)]
    return sorted(views, key=lambda view: view.record.fit.bucket)


def _decode_ahead(
    views: list[View], problems: Problems, advance: Callable[[], object]
) -> Iterator[tuple[View, np.ndarray]]:
    """Views with their pixels, mirrored ones after their originals. Bad images are added to `problems`."""
    with ThreadPoolExecutor(DECODERS) as pool:
        remaining = iter(views)
        waiting = deque((view, pool.submit(view.load)) for view in islice(remaining, IMAGES_AHEAD))
        while waiting:
            view, future = waiting.popleft()
            pixels = problems.attempt(future.result)
            waiting.extend((following, pool.submit(following.load)) for following in islice(remaining, 1))
            if pixels is not None:
                yield view, pixels
                if view.record.subset.flip_aug:
                    yield View(view.index, view.record, view.crop, True), pixels[:, ::-1]
            advance()


def _batches(
    decoded: Iterable[tuple[View, np.ndarray]], batch_size: int
) -> Iterator[list[tuple[View, np.ndarray]]]:
    """Groups of at most `batch_size` of one size."""
    batch: list[tuple[View, np.ndarray]] = []
    for item in decoded:
        if batch and (len(batch) == batch_size or _bucket(item) != _bucket(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _bucket(item: tuple[View, np.ndarray]) -> Size:
    return item[0].record.fit.bucket


def _encode_batch(
    batch: list[tuple[View, np.ndarray]], encode: Encode, cache: LatentCache, seed: int, problems: Problems
) -> None:
    import torch

    width, height = (side // PIXELS_PER_LATENT for side in _bucket(batch[0]))
    noise = [
        torch.randn(
            (LATENT_CHANNELS, height, width),
            generator=keyed_generator(seed, "cached posterior", view.index, int(view.flip)),
        )
        for view, _ in batch
    ]
    latents = encode(to_pixels([pixels for _, pixels in batch]), torch.stack(noise)).float().cpu()
    for (view, _), latent in zip(batch, latents, strict=True):
        if not latent.isfinite().all():
            problems.add(
                view.record.image, "the VAE gives NaN or infinite latents for it", "try --no_half_vae"
            )
        # A copy: a slice would keep the memory of its whole batch.
        cache.latents[view.index, view.flip] = latent.clone()
