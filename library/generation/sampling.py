"""Sampling: the loop over the timesteps of one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from library.generation.samplers import Sampler

Predict = Callable[[Tensor, Tensor], Tensor]  # (x, t) -> the model's prediction, in x's shape and float32


@dataclass(frozen=True)
class Watcher:
    """Looks on while pictures are drawn.

    stop: asked before each step; True ends the drawing without a picture.
    on_step: told after each step how many pictures it advanced.
    """

    stop: Callable[[], bool] = lambda: False
    on_step: Callable[[int], object] = lambda pictures: None


def sample(
    x: Tensor, predict: Predict, sampler: Sampler, generators: Sequence[torch.Generator], watcher: Watcher
) -> Tensor | None:
    """Clean latents in x's shape and float32; None if the watcher stopped it.

    x: (pictures, channels, h, w), as `sampler.start` gives it.
    generators: one for each picture, for samplers that add noise.
    """
    for t in sampler.timesteps:
        if watcher.stop():
            return None
        prediction = predict(sampler.model_input(x, t), t)
        x = sampler.step(prediction, t, x, generators)
        watcher.on_step(len(x))
    return x
