"""Start: the latents that a pass begins with, and the generators that all its noise comes from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from library.generation.request import PromptRequest


def generators_of(requests: Sequence[PromptRequest]) -> list[torch.Generator]:
    """One generator for each picture, on the CPU: a picture's noise depends on its seed alone, not on the
    device nor on the batch.
    """
    return [torch.Generator("cpu").manual_seed(request.chosen_seed) for request in requests]


def noise(shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal latents (pictures, channels, h, w) in float32, one from each generator.

    Equal to the noise of diffusers' pipelines for `generator=torch.Generator("cpu").manual_seed(seed)`.

    shape: (channels, h, w) of a latent.
    """
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])
