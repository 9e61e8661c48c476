"""What the tests of data share: a stand-in for a VAE, its latents, and processes that are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from library.latent_space import LatentSpace
from library.sharing import Sharing

R = TypeVar("R")

LATENTS = LatentSpace(channels=4, pixels_per_latent=8, pixel_multiple=8)


class CountingVae:
    """A stand-in for a VAE that counts pictures. A latent knows nothing of its batch."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        self.count += len(pixels)
        return encode(pixels, noise)


def encode(pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Means of 8 x 8 pixels, and noise."""
    small = torch.nn.functional.avg_pool2d(pixels, 8)
    return torch.cat([small, small[:, :1]], dim=1) * 0.5 + noise


def together(work: Callable[[Sharing], R], processes: int = 2) -> list[R | Exception]:
    """What `work` gives or raises in each of several processes, which are threads here."""
    barrier = threading.Barrier(processes, timeout=60)
    values: list[object] = [None] * processes

    def run(rank: int) -> R | Exception:
        def gather(value: object) -> Sequence[object]:
            values[rank] = value
            barrier.wait()
            found = list(values)
            barrier.wait()
            return found

        try:
            return work(Sharing(rank, processes, gather))
        except Exception as error:
            return error

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(run, range(processes)))
