"""Fixtures that many tests share: a tiny model of each family, made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from library.models.base import Model
from tools.make_tiny_model import tiny_sd1

torch.set_num_threads(1)


@pytest.fixture
def tiny_model() -> Model:
    """A fresh tiny SD 1.x."""
    return tiny_sd1()


@pytest.fixture(scope="session")
def tiny_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny SD 1.x as a single file. Not to be changed."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    tiny_sd1().save(path, "safetensors")
    return path


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a Diffusers folder. Not to be changed."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_sd1().save(path, "diffusers_safetensors")
    return path
