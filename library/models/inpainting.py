"""Inpainting models: beside the noisy latents they are given a mask and the picture without what it marks.

The order is noisy latents, mask, latents of the masked picture (Rombach et al. 2022, arXiv:2112.10752, as the
published inpainting models of SD 1.5, SD 2 and SDXL have it).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from library.models.base import Model


def masked_input(model: Model, pixels: Tensor, holes: Tensor) -> Tensor:
    """What an inpainting model is given beside the noisy latents: (batch, 1 + channels, h, w), in the size of
    its latents, float32. The latents are the mean of the VAE's posterior.

    pixels: (batch, 3, height, width) in -1..1; what is in holes does not count: they are mid-grey.
    holes: (batch, 1, height, width), 1 where the picture is to be painted anew, else 0.
    """
    height, width = pixels.shape[-2:]
    mean = pixels.new_zeros(len(pixels), *model.latent_space.shape(width, height))
    latents = model.encode_images(pixels * (1 - holes), mean)
    return torch.cat([latent_holes(holes, latents.shape[-2:]), latents], dim=1)


def latent_holes(holes: Tensor, size: torch.Size) -> Tensor:
    """A mask of 0 and 1 in the size of latents, by the nearest pixel: diffusers' and AUTOMATIC1111's rule."""
    return F.interpolate(holes, size=size, mode="nearest")


def widened(weight: Tensor, channels: int) -> Tensor:
    """A first layer's weight (out, in, ...) for more input channels, which count 0."""
    more = channels - weight.shape[1]
    return (
        torch.cat([weight, weight.new_zeros(len(weight), more, *weight.shape[2:])], dim=1) if more else weight
    )
