"""The space that a family's VAE encodes pictures to: the shape of latents and their scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PerChannel = float | tuple[float, ...]


@dataclass(frozen=True)
class LatentSpace:
    """The shape and scaling of a family's latents.

    channels: of a latent.
    pixels_per_latent: how many times smaller a latent is than its picture, in each direction.
    pixel_multiple: the sides of pictures are multiples of it.
    scale, shift: the denoiser sees (VAE's output - shift) x scale; one number, or one for each channel.
    """

    channels: int
    pixels_per_latent: int
    pixel_multiple: int
    scale: PerChannel = 1.0
    shift: PerChannel = 0.0

    @property
    def inpainting_channels(self) -> int:
        """What an inpainting model's first layer takes: noisy latents, a mask, and latents of the picture
        without what the mask marks.
        """
        return 2 * self.channels + 1

    def shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latent of a picture of this size in pixels."""
        return self.channels, height // self.pixels_per_latent, width // self.pixels_per_latent

    def scaled(self, encoded: Tensor) -> Tensor:
        """The VAE's output (batch, channels, height, width) as the denoiser sees it."""
        if self.shift != 0.0:
            encoded = encoded - _broadcast(self.shift, encoded)
        return encoded * _broadcast(self.scale, encoded)

    def unscaled(self, latents: Tensor) -> Tensor:
        """The inverse of `scaled`: what the VAE decodes."""
        latents = latents / _broadcast(self.scale, latents)
        return latents if self.shift == 0.0 else latents + _broadcast(self.shift, latents)


def _broadcast(value: PerChannel, like: Tensor) -> Tensor | float:
    """One number unchanged; numbers for channels as a tensor (channels, 1, 1)."""
    return like.new_tensor(value).view(-1, 1, 1) if isinstance(value, tuple) else value
