"""In which precision weights are kept: trained ones in float32, frozen ones in that of the computation."""

from __future__ import annotations

import torch
from torch import nn

from library.training.task import Task


def set_precision(task: Task, frozen: torch.dtype, *, no_half_vae: bool) -> None:
    """Cast the task's model part by part. frozen: the type of parts that are not trained.

    A part that loses digits by it and will be saved with the result is saved as it was read.
    """
    model = task.model
    modules = {"unet": model.denoiser, "text_encoder": model.text_encoders, "vae": model.vae}
    for part, module in modules.items():
        is_trained = any(parameter.requires_grad for parameter in module.parameters())
        is_full = is_trained or (part == "vae" and no_half_vae)
        dtype = torch.float32 if is_full else frozen
        if task.saves_model and any(_loses(parameter.dtype, dtype) for parameter in module.parameters()):
            model.keep_weights(part)
        _cast(module, dtype)


def _loses(old: torch.dtype, new: torch.dtype) -> bool:
    return torch.promote_types(old, new) != new


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    nn.Module.to(module, dtype)  # not diffusers' own `to`, which warns about every cast
