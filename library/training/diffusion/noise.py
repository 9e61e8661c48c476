"""The random draws of a training sample, made on the CPU so that they are the same on every device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from library.data.builder import SampleDraws
from library.options.objective import ObjectiveOptions
from library.randomness import derive_seed, keyed_generator, keyed_random
from library.training.diffusion.strata import Strata
from library.training.diffusion.timesteps import Timesteps

Shape = tuple[int, int, int]  # channels, height and width of a latent
RATIOS = (2.0, 4.0)  # bounds of the ratio between one resolution of multires noise and the next


@dataclass(frozen=True)
class NoiseDraw:
    """Draws by key: the same (seed, epoch, sample) always gives the same noise, timestep and posterior noise.
    Each option has a key of its own, so that turning it on changes no other draw.

    options: of the noise; None: plain standard normal noise.
    times: how timesteps are distributed; None: evenly.
    strata: spread them over the samples of an epoch; None: each is drawn by itself.
    encodes: whether pictures are encoded at every step, which takes noise for the VAE's posterior.
    """

    seed: int
    options: ObjectiveOptions | None = None
    encodes: bool = True
    times: Timesteps | None = None
    strata: Strata | None = None

    def __call__(self, epoch: int, sample: int, shape: Shape) -> SampleDraws:
        noise = torch.randn(shape, generator=self._generator("sample", epoch, sample))
        u = self._time(epoch, sample)
        posterior = None
        if self.encodes:
            posterior = torch.randn(shape, generator=self._generator("posterior", epoch, sample))
        draws = SampleDraws(noise, u, posterior)
        return draws if self.options is None else self._shaped(draws, self.options, epoch, sample, shape)

    def _shaped(
        self, draws: SampleDraws, options: ObjectiveOptions, epoch: int, sample: int, shape: Shape
    ) -> SampleDraws:
        """The draws with everything that the options add to the noise."""
        noise, offset = draws.noise, self._offset(options, epoch, sample, shape[0])
        if options.multires_noise_iterations:
            noise = noise + self._levels(options, epoch, sample, shape)
        if options.adaptive_noise_scale is None:  # else the offset depends on the latents
            noise, offset = complete_noise(noise, offset, options), None
        disturbance = self._disturbance(options, epoch, sample, shape)
        return replace(draws, noise=noise, offset=offset, disturbance=disturbance)

    def _time(self, epoch: int, sample: int) -> float:
        """Where the sample's timestep lies in the range that is trained, in 0..1."""
        u = self._uniform("time", epoch, sample)
        if self.strata is not None:
            u = self.strata(u, epoch, sample)
        return u if self.times is None else self.times(u)

    def _generator(self, purpose: str, epoch: int, sample: int) -> torch.Generator:
        return keyed_generator(self.seed, purpose, epoch, sample)

    def _uniform(self, purpose: str, epoch: int, sample: int) -> float:
        return derive_seed(self.seed, purpose, epoch, sample) / 2**63  # cheaper than a draw of one number

    def _offset(
        self, options: ObjectiveOptions, epoch: int, sample: int, channels: int
    ) -> tuple[Tensor, Tensor] | None:
        """A standard normal number for each channel (channels, 1, 1), and their strength (1, 1, 1)."""
        strength = options.noise_offset or 0.0
        if not strength and options.adaptive_noise_scale is None:
            return None
        if options.noise_offset_random_strength:
            strength *= self._uniform("offset strength", epoch, sample)
        normal = torch.randn((channels, 1, 1), generator=self._generator("offset", epoch, sample))
        return normal, torch.tensor(strength).view(1, 1, 1)

    def _levels(self, options: ObjectiveOptions, epoch: int, sample: int, shape: Shape) -> Tensor:
        draw = keyed_random(self.seed, "noise ratios", epoch, sample)
        ratios = [draw.uniform(*RATIOS) for _ in range(options.multires_noise_iterations or 0)]
        generator = self._generator("noise levels", epoch, sample)
        return noise_of_levels(shape, level_sizes(shape, ratios), options.multires_noise_discount, generator)

    def _disturbance(self, options: ObjectiveOptions, epoch: int, sample: int, shape: Shape) -> Tensor | None:
        strength = options.ip_noise_gamma
        if not strength:
            return None
        if options.ip_noise_gamma_random_strength:
            strength *= self._uniform("disturbance strength", epoch, sample)
        return strength * torch.randn(shape, generator=self._generator("disturbance", epoch, sample))


def level_sizes(shape: Shape, ratios: list[float]) -> list[tuple[int, int]]:
    """Heights and widths of multires noise: the i-th is ratios[i]^i times smaller than the latent. The first
    one with a side of 1 is the last.
    """
    sizes = []
    for i, ratio in enumerate(ratios):
        sizes.append((max(1, int(shape[1] / ratio**i)), max(1, int(shape[2] / ratio**i))))
        if 1 in sizes[-1]:
            break
    return sizes


def noise_of_levels(
    shape: Shape, sizes: list[tuple[int, int]], discount: float, generator: torch.Generator
) -> Tensor:
    """Multi-resolution noise (Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training"): noise of
    each size, enlarged to the latent's, the i-th times discount^i.
    """
    total = torch.zeros(shape)
    for i, size in enumerate(sizes):
        level = torch.randn((1, shape[0], *size), generator=generator)  # (1, channels, smaller h, w)
        enlarged = torch.nn.functional.interpolate(level, size=shape[1:], mode="bilinear")
        total += discount**i * enlarged[0]  # (channels, h, w)
    return total


def complete_noise(noise: Tensor, offset: tuple[Tensor, Tensor] | None, options: ObjectiveOptions) -> Tensor:
    """Noise with its offset added and, when it has several resolutions, scaled to unit variance; of one
    sample or more.

    offset: normal numbers and their strengths, each (..., channels or 1, 1, 1); None: no offset.
    """
    if offset is not None:
        noise = noise + offset[0] * offset[1]
    return unit_variance(noise) if options.multires_noise_iterations else noise


def unit_variance(noise: Tensor) -> Tensor:
    """Each sample (..., channels, height, width) divided by its standard deviation."""
    return noise / noise.std(dim=(-3, -2, -1), keepdim=True)


def adaptive_strength(strength: Tensor, scale: float, x0: Tensor) -> Tensor:
    """The noise offset's strength (batch, 1, 1, 1), raised by scale times the absolute mean of each latent
    channel, never below 0: (batch, channels, 1, 1).
    """
    return (strength + scale * x0.mean(dim=(-2, -1), keepdim=True).abs()).clamp(min=0)
