"""The kinds of model that tests run over, as tiny models."""

from __future__ import annotations

from library.models.ldm.model import LatentDiffusion
from tools.make_tiny_model import tiny_model

# Every kind of model that can be trained: its family and how it predicts.
KINDS = {
    "sd1": ("sd1", "epsilon"),
    "sd2": ("sd2", "epsilon"),
    "sd2-v": ("sd2", "v"),
    "sdxl": ("sdxl", "epsilon"),
}


def make_kind(kind: str) -> LatentDiffusion:
    """A fresh tiny model of a kind."""
    family, prediction_type = KINDS[kind]
    return tiny_model(family, prediction_type=prediction_type)
