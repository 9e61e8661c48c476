"""The random draws of one training sample, made on the CPU so that they are the same on every device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from library.randomness import derive_seed, keyed_generator


@dataclass(frozen=True)
class SampleDraws:
    """noise, posterior: standard normal in the latent's shape, posterior None when nothing is encoded; u:
    uniform in [0, 1), becomes the timestep.
    """

    noise: Tensor
    u: float
    posterior: Tensor | None


@dataclass(frozen=True)
class NoiseDraw:
    """Draws by key: the same (seed, epoch, sample) always gives the same noise, timestep and posterior noise.

    noise_offset: strength of noise that is constant over the picture, per channel (Guttenberg 2023); 0: none.
    encodes: whether pictures are encoded at every step, which takes the posterior's noise.
    """

    seed: int
    noise_offset: float = 0.0
    encodes: bool = True

    def __call__(self, epoch: int, sample: int, shape: tuple[int, int, int]) -> SampleDraws:
        """shape: (channels, height, width) of the latent."""
        generator = keyed_generator(self.seed, "sample", epoch, sample)
        noise = torch.randn(shape, generator=generator)
        if self.noise_offset:  # drawn last, so that turning it on leaves the other draws alone
            noise = noise + self.noise_offset * torch.randn((shape[0], 1, 1), generator=generator)
        u = derive_seed(self.seed, "time", epoch, sample) / 2**63  # cheaper than a draw of one number
        return SampleDraws(noise, u, self._posterior(epoch, sample, shape))

    def _posterior(self, epoch: int, sample: int, shape: tuple[int, int, int]) -> Tensor | None:
        if not self.encodes:
            return None
        return torch.randn(shape, generator=keyed_generator(self.seed, "posterior", epoch, sample))
