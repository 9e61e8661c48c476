"""Start: the latents that a pass begins with, and the generators that all its noise comes from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from library.generation.request import PromptRequest
from library.randomness import keyed_generator, keyed_random

_LEVELS = 10  # of pyramid noise, where the latents have so many


def generators_of(requests: Sequence[PromptRequest]) -> list[torch.Generator]:
    """One generator for each picture, on the CPU: a picture's noise depends on its seed alone, not on the
    device nor on the batch.
    """
    return [torch.Generator("cpu").manual_seed(request.chosen_seed) for request in requests]


def with_start_noise(requests: Sequence[PromptRequest], drawn: Tensor) -> Tensor:
    """The noise that was drawn, with what the requests add to it; of the same shape.

    What is added comes from generators of its own, so that it changes no noise of later steps.
    """
    if all(request.start_noise is None for request in requests):
        return drawn
    return torch.cat(
        [_completed(own, request) for own, request in zip(drawn.split(1), requests, strict=True)]
    )


def _completed(drawn: Tensor, request: PromptRequest) -> Tensor:
    added = request.start_noise
    if added is None:
        return drawn
    chance = keyed_random(request.chosen_seed, "start noise")
    has_offset, offset = chance.random() < added.offset_chance, chance.uniform(*added.offset)
    has_pyramid, discount = chance.random() < added.pyramid_chance, chance.uniform(*added.discount)
    if has_offset:
        drawn = drawn + offset
    return _pyramid(drawn, discount, request.chosen_seed) if has_pyramid else drawn


def _pyramid(drawn: Tensor, discount: float, seed: int) -> Tensor:
    """Noise of coarser and coarser levels added, each 2 to 4 times coarser than the one before; again of
    deviation 1 (Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training").
    """
    ratios, generator = keyed_random(seed, "pyramid ratios"), keyed_generator(seed, "pyramid")
    size = drawn.shape[-2:]
    height, width = float(size[0]), float(size[1])
    for level in range(1, _LEVELS):
        ratio = ratios.uniform(2, 4)
        height, width = max(1.0, height / ratio), max(1.0, width / ratio)
        coarse = torch.randn((1, drawn.shape[1], int(height), int(width)), generator=generator)
        fine = F.interpolate(coarse, size=size, mode="bilinear").to(drawn.device)
        drawn = drawn + fine * discount**level
        if height == 1 or width == 1:
            break
    return drawn / drawn.std()


def noise(shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal latents (pictures, channels, h, w) in float32, one from each generator.

    Equal to the noise of diffusers' pipelines for `generator=torch.Generator("cpu").manual_seed(seed)`.

    shape: (channels, h, w) of a latent.
    """
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])
