"""Whether Deep Shrink and Gradual Latent can be drawn with."""

from __future__ import annotations

from collections.abc import Iterable

from library.generation.request import PromptRequest
from library.models.families import NetworkNames
from library.options.samplers import parts_of
from library.problems import Problems

# Samplers that keep no earlier predictions, which would have another size.
GROWING = ("ddim", "euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "lcm")


def check_large(
    requests: Iterable[PromptRequest], names: NetworkNames, *, has_lllites: bool, is_inpainting: bool
) -> None:
    """Raises UserError with everything that large pictures are asked for in vain.

    names: of the model's blocks.
    has_lllites: whether ControlNet-LLLites draw too.
    """
    problems, levels = Problems(), names.structure.levels
    # Files in the original layout count every input block: the layers of each level and what comes before it.
    deepest = levels * (names.structure.layers + 1) - 1 if names.is_original else levels - 1
    for request in requests:
        where = f"prompt {request.prompt[:40]!r}"
        asked = {"Deep Shrink": request.deep_shrink, "Gradual Latent": request.gradual}
        for name in [name for name, given in asked.items() if given is not None and has_lllites]:
            problems.add(where, f"{name} cannot be drawn with ControlNet-LLLites", "leave out one of both")
        if request.deep_shrink is not None and request.deep_shrink.deepest > deepest:
            cause = f"Deep Shrink: the model has no block {request.deep_shrink.deepest}"
            problems.add(where, cause, f"take 0 to {deepest}")
        if request.gradual is not None:
            _check_gradual(request, where, is_inpainting, problems)
    problems.raise_if_any()


def _check_gradual(request: PromptRequest, where: str, is_inpainting: bool, problems: Problems) -> None:
    sampler = parts_of(request.sampler)[0]
    if sampler.removeprefix("k_") not in GROWING:
        cause = f"Gradual Latent: {sampler} keeps earlier predictions, which would have another size"
        problems.add(where, cause, f"take one of {', '.join(GROWING)}")
    if is_inpainting:
        problems.add(where, "Gradual Latent cannot be drawn with inpainting models")
    elif request.image is not None:
        problems.add(where, "Gradual Latent begins with noise, not with a picture", "leave out one of both")
