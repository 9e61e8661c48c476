"""Sampling: the loop over the timesteps of one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from library.generation.samplers import Sampler

# (x, t, the share of the steps that is done) -> the model's prediction, in x's shape and float32
Predict = Callable[[Tensor, Tensor, float], Tensor]
# (x, how many calls of the model are done) -> x, changed before the next one, or before it is given back
Change = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Watcher:
    """Looks on while pictures are drawn.

    stop: asked before each step; True ends the drawing without a picture.
    on_step: told after each step how many pictures it advanced.
    """

    stop: Callable[[], bool] = lambda: False
    on_step: Callable[[int], object] = lambda pictures: None


def sample(
    x: Tensor,
    predict: Predict,
    sampler: Sampler,
    generators: Sequence[torch.Generator],
    watcher: Watcher,
    change: Change | None = None,
) -> Tensor | None:
    """Clean latents in x's shape and float32; None if the watcher stopped it.

    x: (pictures, channels, h, w), as `sampler.start` or `sampler.noised` gives it.
    generators: one for each picture, for samplers that add noise.
    change: what becomes of x after each call of the model.
    """
    calls = len(sampler.timesteps)
    for call, t in enumerate(sampler.timesteps):
        if watcher.stop():
            return None
        prediction = predict(sampler.model_input(x, t), t, call / calls)
        x = sampler.step(prediction, t, x, generators)
        if change is not None:
            x = change(x, call + 1)
        watcher.on_step(len(x))
    return x
