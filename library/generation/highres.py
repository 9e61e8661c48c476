"""Highres fix: which two pictures a request is drawn as, and what enlarges the first. Imports no torch until
something is drawn.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from library.generation.repainting import SIDES, Original, latents_of
from library.generation.request import PromptRequest
from library.options.drawing_originals import DEFAULT_STRENGTH
from library.problems import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from library.models.base import Model


class Upscaler(Protocol):
    """What enlarges, as sd-scripts calls it: the result of a module's `create_upscaler(**arguments)`."""

    def support_latents(self) -> bool:
        """Whether it enlarges latents; else it enlarges pictures."""

    def upscale(
        self,
        vae: Any,
        images: Sequence[Image.Image] | None,
        latents: Tensor | None,
        dtype: torch.dtype,
        width: int,
        height: int,
        batch_size: int,
        vae_batch_size: int,
    ) -> Any:
        """Scaled latents (pictures, channels, h, w) of pictures of that size, or the pictures themselves."""


@dataclass(frozen=True)
class Stages:
    """How pictures are drawn in two stages.

    upscaler: None: pictures are enlarged by Lanczos, or latents bicubically.
    upscales_latents: whether it is latents, where there is no upscaler.
    on_small: is given the small pictures.
    """

    upscaler: Upscaler | None = None
    upscales_latents: bool = False
    on_small: Callable[[PromptRequest, Image.Image], object] = lambda request, picture: None

    @property
    def is_of_latents(self) -> bool:
        return self.upscales_latents if self.upscaler is None else bool(self.upscaler.support_latents())


def first_stage(request: PromptRequest) -> PromptRequest:
    """The small picture of a request with highres fix: sides down to multiples of 32, and what the model is
    told of sizes and crops smaller too.
    """
    fix = request.highres
    assert fix is not None

    def smaller(pixels: int | None) -> int | None:
        return None if pixels is None else int(pixels * fix.scale + 0.5)

    def side(pixels: int) -> int:
        return max(SIDES, int(pixels * fix.scale + 0.5) // SIDES * SIDES)

    return replace(
        request,
        width=side(request.width),
        height=side(request.height),
        steps=fix.steps,
        strength=request.strength if fix.strength is None or request.image is None else fix.strength,
        original_width=smaller(request.original_width),
        original_height=smaller(request.original_height),
        original_width_negative=smaller(request.original_width_negative),
        original_height_negative=smaller(request.original_height_negative),
        crop_top=int(request.crop_top * fix.scale + 0.5),
        crop_left=int(request.crop_left * fix.scale + 0.5),
        highres=None,
    )


def second_stage(request: PromptRequest) -> PromptRequest:
    """The large picture, which begins with the small one enlarged. Its noise has a seed of its own, the next
    one; all of it is drawn on.
    """
    fix = request.highres
    assert fix is not None
    strength = request.second_strength
    return replace(
        request,
        strength=DEFAULT_STRENGTH if strength is None else strength,
        seed=(request.chosen_seed + 1) % 2**64,
        image=None,
        mask=None,
        gradual=None,
        hints=() if fix.disables_control else request.hints,
        highres=None,
    )


def enlarged(
    model: Model,
    stages: Stages,
    latents: Tensor,
    pictures: Sequence[Image.Image | None],
    request: PromptRequest,
) -> Tensor:
    """Scaled latents (pictures, channels, h, w), float32, of the small pictures in the request's size.

    latents: of the small pictures. pictures: these themselves, where the stages are of pictures; None for
        those with values that are no numbers.
    """
    size = request.width, request.height
    shape = model.latent_space.shape(*size)
    if stages.upscaler is None and stages.upscales_latents:
        import torch.nn.functional as F

        return F.interpolate(latents.float(), size=shape[1:], mode="bicubic", align_corners=False)
    whole = [picture or Image.new("RGB", size) for picture in pictures]
    if stages.upscaler is None:
        return _encoded(model, [one.resize(size, Image.Resampling.LANCZOS) for one in whole])
    of_latents = stages.is_of_latents
    found = stages.upscaler.upscale(
        model.vae, None if of_latents else whole, latents if of_latents else None, latents.dtype, *size, 1, 1
    )
    return _checked(model, found, (len(latents), *shape)).to(latents)


def load_upscaler(name: str, arguments: Mapping[str, str]) -> Upscaler:
    """The upscaler of a module. Raises UserError when it has none, or refuses its arguments."""
    where = f"--highres_fix_upscaler {name}"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError.of(
            where, f"cannot be imported ({error})", "give the dotted path of a module"
        ) from None
    if not hasattr(module, "create_upscaler"):
        raise UserError.of(where, "has no create_upscaler", "give a module for highres fix")
    try:
        upscaler: Upscaler = module.create_upscaler(**arguments)
    except (TypeError, ValueError, OSError) as error:
        raise UserError.of(where, str(error), "see --highres_fix_upscaler_args") from None
    return upscaler


def _encoded(model: Model, pictures: Sequence[Image.Image]) -> Tensor:
    return latents_of(model, [Original(np.asarray(picture.convert("RGB")), None) for picture in pictures])


def _checked(model: Model, found: Any, shape: tuple[int, ...]) -> Tensor:
    """What an upscaler gave, as latents."""
    import torch

    if isinstance(found, (list, tuple)) and found and isinstance(found[0], Image.Image):
        return _encoded(model, found)
    latents = torch.stack(list(found)) if isinstance(found, (list, tuple)) else found
    if tuple(latents.shape) != shape:
        raise UserError.of("--highres_fix_upscaler", f"gave latents of {tuple(latents.shape)}, not {shape}")
    return latents
