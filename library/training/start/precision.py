"""The precision of weights: trained ones in float32 unless told otherwise, frozen ones as computed in."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from library.models.base import Role
from library.models.float8 import store_in_float8
from library.problems import warn
from library.training.tasks.task import Task

# The layers of parts with this role, as users name them.
_GROUPS: dict[Role, str] = {"denoiser": "unet", "text_encoder": "te"}


def set_precision(
    task: Task,
    frozen: torch.dtype,
    *,
    trained: torch.dtype = torch.float32,
    no_half_vae: bool,
    float8: Collection[str] = (),
) -> None:
    """Cast a task's weights.

    frozen: the dtype of the model's parts that are not trained.
    trained: the dtype of its other parts, and of what is trained beside the model.
    no_half_vae: keep the VAE in float32.
    float8: the parts ("unet", "te") whose frozen layers keep their weights in float8.
    A part that loses precision by the cast and is saved with the result is saved as it was read.
    """
    model = task.model
    # Some VAEs overflow in float16.
    keeps_vae = no_half_vae or (frozen == torch.float16 and not model.half_vae)
    for part, module in model.parts.items():
        role = model.roles[part]
        is_trained = any(parameter.requires_grad for parameter in module.parameters())
        dtype = trained if is_trained else torch.float32 if role == "vae" and keeps_vae else frozen
        goes_to_float8 = _GROUPS.get(role) in float8
        loses = goes_to_float8 or any(_loses_precision(p.dtype, dtype) for p in module.parameters())
        if task.saves_model and loses and not is_trained:
            model.keep_weights(part)
        _cast(module, dtype)
    for parameter in task.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(trained)
    if float8:
        _store_in_float8(task, float8)


def frozen_layers(task: Task, parts: Collection[str]) -> list[nn.Linear | nn.Conv2d]:
    """The layers in these parts ("unet", "te") that are not trained and that networks can attach to: they
    hold nearly all weights.
    """
    trained = {id(module) for part in task.trained_parts() for module in task.model.parts[part].modules()}
    points = [point for point in task.model.attach_points() if point.part in parts]
    return [point.module for point in points if id(point.module) not in trained]


def _store_in_float8(task: Task, parts: Collection[str]) -> None:
    layers = frozen_layers(task, parts)
    for layer in layers:
        store_in_float8(layer)
    if not layers:
        flag = "--fp8_base" if "te" in parts else "--fp8_base_unet"
        warn(f"{flag} has no effect: all of what it is for is trained")


def _loses_precision(old: torch.dtype, new: torch.dtype) -> bool:
    return torch.promote_types(old, new) != new


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    nn.Module.to(module, dtype)  # not diffusers' own `to`, which warns about every cast
