"""In which precision weights are kept: trained ones in float32, frozen ones in that of the computation."""

from __future__ import annotations

import torch

from library.training.task import Task


def set_precision(task: Task, frozen: torch.dtype, *, no_half_vae: bool) -> None:
    """Cast the task's model part by part. frozen: the type of parts that are not trained."""
    model = task.model
    for part in (model.denoiser, *model.text_encoders):
        is_trained = any(parameter.requires_grad for parameter in part.parameters())
        part.to(torch.float32 if is_trained else frozen)
    model.vae.to(torch.float32 if no_half_vae else frozen)
