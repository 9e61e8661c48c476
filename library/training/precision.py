"""In which precision weights are kept: trained ones in float32, frozen ones in that of the computation."""

from __future__ import annotations

import torch
from torch import nn

from library.models.float8 import store_in_float8
from library.problems import warn
from library.training.task import Task


def set_precision(task: Task, frozen: torch.dtype, *, no_half_vae: bool, float8: bool = False) -> None:
    """Cast the task's model part by part. frozen: the type of parts that are not trained.

    float8: the layers of U-Net and text encoders that are not trained keep their weights in float8.
    A part that loses digits by it and will be saved with the result is saved as it was read.
    """
    model = task.model
    keeps_vae = no_half_vae or (frozen == torch.float16 and not model.half_vae)
    for part, module in model.parts.items():
        is_trained = any(parameter.requires_grad for parameter in module.parameters())
        is_full = is_trained or (part == "vae" and keeps_vae)
        dtype = torch.float32 if is_full else frozen
        loses = (float8 and part != "vae") or any(_loses(p.dtype, dtype) for p in module.parameters())
        if task.saves_model and loses and not is_trained:
            model.keep_weights(part)
        _cast(module, dtype)
    if float8:
        _store_in_float8(task)


def _store_in_float8(task: Task) -> None:
    """The layers that networks know are nearly all of the weights."""
    trained = {id(module) for part in task.trained_parts() for module in task.model.parts[part].modules()}
    layers = [point.module for point in task.model.attach_points() if id(point.module) not in trained]
    for layer in layers:
        store_in_float8(layer)
    if not layers:
        warn("--fp8_base has no effect: all of U-Net and text encoders is trained")


def _loses(old: torch.dtype, new: torch.dtype) -> bool:
    return torch.promote_types(old, new) != new


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    nn.Module.to(module, dtype)  # not diffusers' own `to`, which warns about every cast
