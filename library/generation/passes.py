"""Passes: a batch of requests -> latents. One pass takes all of them from noise to clean latents."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from library.generation.guidance import Guidance
from library.generation.request import PromptRequest
from library.generation.samplers import Sampler
from library.generation.sampling import Watcher, sample
from library.generation.start import generators_of, noise


def draw_latents(requests: Sequence[PromptRequest], guidance: Guidance, watcher: Watcher) -> Tensor | None:
    """Latents (pictures, channels, h, w) in float32; None if the watcher stopped the drawing.

    requests: each with a seed; all of one size, sampler and number of steps.
    """
    model, first = guidance.model, requests[0]
    generators = generators_of(requests)
    sampler = Sampler(
        first.sampler,
        model.prediction_type,
        first.steps,
        zero_terminal_snr=model.zero_terminal_snr,
    )
    shape = model.latent_space.shape(first.width, first.height)
    x = sampler.start(noise(shape, generators).to(guidance.condition.hidden.device))
    return sample(x, guidance.predict, sampler, generators, watcher)
