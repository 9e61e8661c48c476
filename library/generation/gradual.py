"""Gradual Latent: a pass whose latents begin small and grow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from library.generation.guidance import Guidance
from library.generation.large_pictures import GradualLatent, Sides, Unsharp
from library.generation.samplers import Growth, Sampler
from library.generation.sampling import Watcher


def sample_growing(
    noise: Tensor,
    guidance: Guidance,
    sampler: Sampler,
    generators: Sequence[torch.Generator],
    watcher: Watcher,
    gradual: GradualLatent,
) -> Tensor | None:
    """Clean latents in the size of the noise, float32; None if the watcher stopped it.

    noise: (pictures, channels, h, w), standard normal, in the size that the latents have in the end.
    generators: one for each picture; what is added where latents grow comes from them too.
    """
    times, order = sampler.timesteps, sampler.order
    full: Sides = (noise.shape[-2], noise.shape[-1])
    whole = times[::order].tolist()
    growths = gradual.growths(full, whole)
    small = gradual.first(full, len(whole))
    x = sampler.start(_sharpened(_resized(noise, small), gradual.unsharp))
    own = guidance.in_size(x.shape[-2:])
    for call, t in enumerate(times):
        if watcher.stop():
            return None
        prediction = own.predict(sampler.model_input(x, t), t, call / len(times))
        step, is_last_call = divmod(call, order)[0], _ends_a_step(call, order, len(times))
        if is_last_call and (size := growths.get(step)) is not None:
            x = sampler.grow(prediction, t, x, generators, _growth(gradual, size))
            own = guidance.in_size(x.shape[-2:])
        else:
            x = sampler.step(prediction, t, x, generators)
        watcher.on_step(len(x))
    return x


def _ends_a_step(call: int, order: int, calls: int) -> bool:
    return call % order == order - 1 or call == calls - 1


def _growth(gradual: GradualLatent, size: Sides) -> Growth:
    sharpens = gradual.unsharp
    return Growth(
        resize=lambda x: _resized(x, size),
        sharpen=lambda x: _sharpened(x, sharpens),
        s_noise=gradual.s_noise,
        of_result=sharpens is None or sharpens.of_result,
    )


def _resized(x: Tensor, size: Sides) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x.float(), size=size, mode="bicubic", align_corners=False)


def _sharpened(x: Tensor, unsharp: Unsharp | None) -> Tensor:
    """x + (x - blurred x) x strength, each channel by itself."""
    if unsharp is None:
        return x
    reach = (unsharp.kernel - 1) // 2
    places = torch.arange(-reach, reach + 1, dtype=torch.float32, device=x.device)
    weights = torch.exp(-(places**2) / (2 * unsharp.sigma**2))
    weights = weights / weights.sum()
    channels = x.shape[1]
    blurred = F.pad(x, (reach,) * 4, mode="reflect")
    for kernel in (weights.view(1, 1, 1, -1), weights.view(1, 1, -1, 1)):
        blurred = F.conv2d(blurred, kernel.expand(channels, 1, *kernel.shape[2:]), groups=channels)
    return x + (x - blurred) * unsharp.strength
