"""The space that a family's VAE puts pictures in: how large latents are, and how they are scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PerChannel = float | tuple[float, ...]


@dataclass(frozen=True)
class LatentSpace:
    """What of a latent depends on the family.

    channels: of a latent.
    pixels_per_latent: of a picture, each way, that become one place of a latent.
    pixel_multiple: what the sides of pictures are multiples of.
    scale, shift: the denoiser sees (what the VAE gives - shift) x scale; one number, or one for each channel.
    """

    channels: int
    pixels_per_latent: int
    pixel_multiple: int
    scale: PerChannel = 1.0
    shift: PerChannel = 0.0

    def shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latent of a picture of this size in pixels."""
        return self.channels, height // self.pixels_per_latent, width // self.pixels_per_latent

    def scaled(self, encoded: Tensor) -> Tensor:
        """What the VAE gave (batch, channels, height, width) as the denoiser sees it."""
        if self.shift != 0.0:
            encoded = encoded - _broadcast(self.shift, encoded)
        return encoded * _broadcast(self.scale, encoded)

    def unscaled(self, latents: Tensor) -> Tensor:
        """The other way round: what the VAE decodes."""
        latents = latents / _broadcast(self.scale, latents)
        return latents if self.shift == 0.0 else latents + _broadcast(self.shift, latents)


def _broadcast(value: PerChannel, like: Tensor) -> Tensor | float:
    """A number as it is; numbers for channels as (channels, 1, 1)."""
    return like.new_tensor(value).view(-1, 1, 1) if isinstance(value, tuple) else value
