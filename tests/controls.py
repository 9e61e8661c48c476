"""ControlNets for tests: of a tiny model, as after some training."""

from __future__ import annotations

from pathlib import Path

import torch

from library.models.ldm.controlnet import ControlNet, start_control
from library.models.ldm.model import LatentDiffusion
from library.models.saving import Form, Saving


def trained_control(model: LatentDiffusion, *, size: float = 0.05) -> ControlNet:
    """A ControlNet none of whose tensors is as it begins. size: the deviation of what is added."""
    control, generator = start_control(model, seed=0), torch.Generator().manual_seed(1)
    for parameter in control.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * size
    return control.eval()


def write_control(path: Path, model: LatentDiffusion, form: Form = "safetensors") -> Path:
    """The file, or folder, of one."""
    trained_control(model).save(path, Saving(form))
    return path
