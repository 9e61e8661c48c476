"""The random draws of one training sample, made on the CPU so that they are the same on every device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from library.randomness import keyed_generator


@dataclass(frozen=True)
class SampleDraws:
    """noise, posterior: standard normal in the latent's shape; u: uniform in [0, 1), becomes the timestep."""

    noise: Tensor
    u: float
    posterior: Tensor


@dataclass(frozen=True)
class NoiseDraw:
    """Draws by key: the same (seed, epoch, sample) always gives the same noise, timestep and posterior noise.

    noise_offset: strength of noise that is constant over the picture, per channel (Guttenberg 2023); 0: none.
    """

    seed: int
    noise_offset: float = 0.0

    def __call__(self, epoch: int, sample: int, shape: tuple[int, int, int]) -> SampleDraws:
        """shape: (channels, height, width) of the latent."""
        generator = keyed_generator(self.seed, "sample", epoch, sample)
        noise = torch.randn(shape, generator=generator)
        u = torch.rand((), generator=generator)
        posterior = torch.randn(shape, generator=generator)
        if self.noise_offset:  # drawn last, so that turning it on leaves the other draws alone
            noise = noise + self.noise_offset * torch.randn((shape[0], 1, 1), generator=generator)
        return SampleDraws(noise, float(u), posterior)
