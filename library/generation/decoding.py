"""Latents -> pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from library.generation.request import PromptRequest
from library.models.compiling import compile_blocks
from library.options.drawing_memory import MemoryOptions
from library.problems import warn

if TYPE_CHECKING:
    from library.models.base import Model

TILE = 1024  # pixels: what is larger is decoded in tiles of this size, where it is


def prepare(model: Model, options: MemoryOptions) -> None:
    """Let a model that is on its device draw as the options of memory and speed say."""
    if options.opt_channels_last:
        for module in (model.denoiser, model.vae):
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not typed
    if options.vae_slices is not None:
        decode_in_tiles(model)
    if options.torch_compile:
        compile_blocks(model.blocks(), "inductor", device=next(model.denoiser.parameters()).device)


def decode_in_tiles(model: Model) -> None:
    """From now on the VAE decodes what is larger than a tile in tiles, with blended edges, one picture at a
    time.
    """
    vae: Any = model.vae
    vae.enable_slicing()
    vae.enable_tiling()
    vae.tile_sample_min_size = TILE
    vae.tile_latent_min_size = TILE // model.latent_space.pixels_per_latent


def decoded(
    model: Model, latents: Tensor, requests: Sequence[PromptRequest], *, together: int = 1
) -> list[Image.Image | None]:
    """The pictures of latents (pictures, channels, h, w); None, with a warning, for one whose values are no
    numbers. Where the memory of the device does not suffice, they are decoded in tiles.

    together: how many at once; the VAE needs the most memory of all.
    """
    found = [pixels for part in latents.split(together) for pixels in _pixels(model, part)]
    return [_picture(pixels, request) for pixels, request in zip(found, requests, strict=True)]


def _pixels(model: Model, latents: Tensor) -> Tensor:
    """(pictures, 3, height, width) in -1..1, float32."""
    vae_dtype = next(model.vae.parameters()).dtype
    with torch.autocast(latents.device.type, enabled=False):
        try:
            return model.decode_latents(latents.to(vae_dtype)).float()
        except torch.OutOfMemoryError:
            _warn_of_tiles()
            decode_in_tiles(model)
            torch.cuda.empty_cache()
            return model.decode_latents(latents.to(vae_dtype)).float()


def _picture(pixels: Tensor, request: PromptRequest) -> Image.Image | None:
    if not torch.isfinite(pixels).all():
        what = f"the picture of {request.prompt[:40]!r}, seed {request.seed}"
        warn(f"{what}, has values that are no numbers: it is not saved")
        return None
    return image_of(pixels)


def image_of(pixels: Tensor) -> Image.Image:
    """The picture of (3, height, width) in -1..1."""
    levels = (pixels * 0.5 + 0.5).clamp(0, 1) * 255
    return Image.fromarray(levels.round().to("cpu", torch.uint8).permute(1, 2, 0).numpy())


@cache  # once
def _warn_of_tiles() -> None:
    warn("the VAE needs more memory than there is: pictures are decoded in tiles (as with --vae_slices)")
