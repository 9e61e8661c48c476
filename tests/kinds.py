"""The kinds of model that tests run over, as tiny models, and a LoRA of any."""

from __future__ import annotations

from pathlib import Path

import torch

from library.models import load_model
from library.models.ldm.model import LatentDiffusion
from library.models.saving import Saving
from networks import lora
from tools.make_tiny_model import tiny_model

# Every kind of model that can be trained: its family and how it predicts.
KINDS = {
    "sd1": ("sd1", "epsilon"),
    "sd2": ("sd2", "epsilon"),
    "sd2-v": ("sd2", "v"),
    "sdxl": ("sdxl", "epsilon"),
}


def make_kind(kind: str, *, shallow: bool = False) -> LatentDiffusion:
    """A fresh tiny model of a kind."""
    family, prediction_type = KINDS[kind]
    return tiny_model(family, prediction_type=prediction_type, shallow=shallow)


def write_lora(path: Path, model: Path, size: float, *, conv_dim: int = 2) -> Path:
    """A LoRA of a model as after some training: no tensor is zero. size: the deviation of its values."""
    arguments = {"conv_dim": str(conv_dim)}
    settings = {"dim": 4, "alpha": 2.0, "dropout": None, "arguments": arguments}
    network = lora.create(load_model(model), **settings, parts=("unet", "te"), seed=1)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * size)
    network.save(path, Saving("safetensors"))
    return path
