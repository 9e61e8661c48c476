"""In which precision weights are kept: trained ones in float32, frozen ones in that of the computation."""

from __future__ import annotations

import torch
from torch import nn

from library.training.task import Task


def set_precision(task: Task, frozen: torch.dtype, *, no_half_vae: bool) -> None:
    """Cast the task's model part by part. frozen: the type of parts that are not trained."""
    model = task.model
    for part in (model.denoiser, *model.text_encoders):
        is_trained = any(parameter.requires_grad for parameter in part.parameters())
        _cast(part, torch.float32 if is_trained else frozen)
    _cast(model.vae, torch.float32 if no_half_vae else frozen)


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    nn.Module.to(module, dtype)  # not diffusers' own `to`, which warns about every cast
