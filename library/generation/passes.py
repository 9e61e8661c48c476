"""Passes: a batch of requests -> latents. One pass takes all of them from noise, or from pictures with noise,
to clean latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from library.generation.gradual import sample_growing
from library.generation.guidance import Guidance
from library.generation.request import PromptRequest
from library.generation.samplers import Sampler
from library.generation.sampling import Change, Watcher, sample
from library.generation.start import generators_of, noise, with_start_noise


@dataclass(frozen=True)
class Begun:
    """What a pass begins with in place of noise alone.

    latents: (pictures, channels, h, w) float32, scaled, of the originals.
    holes: (pictures, 1, h, w), 1 where they are painted anew, else 0; None: everywhere.
    """

    latents: Tensor
    holes: Tensor | None = None


def draw_latents(
    requests: Sequence[PromptRequest], guidance: Guidance, watcher: Watcher, begun: Begun | None = None
) -> Tensor | None:
    """Latents (pictures, channels, h, w) in float32; None if the watcher stopped the drawing.

    requests: each with a seed; all of one size, sampler, strength and number of steps.
    begun: of the pictures that the requests begin with; None: they begin with noise alone.
    """
    model, first = guidance.model, requests[0]
    strength = 1.0 if begun is None else first.chosen_strength
    generators = generators_of(requests)
    sampler = Sampler(
        first.sampler,
        model.prediction_type,
        first.steps,
        strength=strength,
        zero_terminal_snr=model.zero_terminal_snr,
    )
    shape = model.latent_space.shape(first.width, first.height)
    drawn = with_start_noise(requests, noise(shape, generators)).to(guidance.condition.hidden.device)
    if begun is None and first.gradual is not None:
        return sample_growing(drawn, guidance, sampler, generators, watcher, first.gradual)
    if begun is None:
        return sample(sampler.start(drawn), guidance.predict, sampler, generators, watcher)
    # Where all of a part is painted anew, nothing of the original is left in the noise, as in diffusers.
    is_anew = begun.holes is not None and strength == 1
    x = sampler.start(drawn) if is_anew else sampler.noised(begun.latents, drawn)
    keep = None if begun.holes is None else _keeping(begun.latents, begun.holes, drawn, sampler)
    return sample(x, guidance.predict, sampler, generators, watcher, keep)


def _keeping(latents: Tensor, holes: Tensor, drawn: Tensor, sampler: Sampler) -> Change:
    """Gives back, outside the holes, the original with the noise that x has there."""

    def keep(x: Tensor, calls: int) -> Tensor:
        if sampler.is_between(calls):
            return x
        return holes * x + (1 - holes) * sampler.noised(latents, drawn, calls)

    return keep
