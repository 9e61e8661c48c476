"""Fixtures that many tests share: tiny models of each family, made on the spot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import diffusers  # noqa: F401  # before ours, for tests compare with all that it can; see unused_packages.py
import pytest
import torch
from kinds import KINDS, make_kind
from long_cases import long

from library import console
from library.models.base import Model
from library.models.ldm.model import LatentDiffusion
from library.models.saving import Saving

torch.set_num_threads(1)
console._SECONDS_IN_SILENCE = 600.0  # what a command says must not depend on the machine's load
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "demo"))  # whose modules tests import


@pytest.fixture(params=[long(kind) if kind == "sd2" else kind for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind in turn; SD 2.x that predicts noise is between two others, and left to the long part."""
    return request.param


@pytest.fixture
def any_model(kind: str) -> LatentDiffusion:
    """A fresh tiny model of every kind in turn."""
    return make_kind(kind)


@pytest.fixture
def any_model_file(kind: str, saved_kind: Callable[[str, str], Path]) -> Path:
    """It as a single file. Not to be changed."""
    return saved_kind(kind, "safetensors")


@pytest.fixture
def any_model_folder(kind: str, saved_kind: Callable[[str, str], Path]) -> Path:
    """It as a Diffusers folder. Not to be changed."""
    return saved_kind(kind, "diffusers_safetensors")


@pytest.fixture(scope="session")
def saved_kind(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """(kind, format) -> a tiny model on disk, written once."""
    root = tmp_path_factory.mktemp("models")

    return cache(partial(_save_kind, root))


def _save_kind(root: Path, kind: str, format: str, *, shallow: bool = False) -> Path:
    path = root / (f"{kind}.safetensors" if format == "safetensors" else kind)
    make_kind(kind, shallow=shallow).save(path, Saving(format))
    return path


@pytest.fixture(scope="session")
def shallow_kind(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """(kind, format) -> a tiny model of two levels on disk, with a third of the operators, for training."""
    return cache(partial(_save_kind, tmp_path_factory.mktemp("shallow models"), shallow=True))


@pytest.fixture(scope="session")
def shallow_model_file(shallow_kind: Callable[[str, str], Path]) -> Path:
    """The tiny SD 1.x of two levels as a single file. Not to be changed."""
    return shallow_kind("sd1", "safetensors")


@pytest.fixture
def tiny_model() -> LatentDiffusion:
    """A fresh tiny SD 1.x."""
    return make_kind("sd1")


@pytest.fixture(scope="session")
def tiny_model_file(saved_kind: Callable[[str, str], Path]) -> Path:
    """The tiny SD 1.x as a single file. Not to be changed."""
    return saved_kind("sd1", "safetensors")


@pytest.fixture(scope="session")
def tiny_model_folder(saved_kind: Callable[[str, str], Path]) -> Path:
    """The same model as a Diffusers folder. Not to be changed."""
    return saved_kind("sd1", "diffusers_safetensors")


@pytest.fixture(scope="session")
def full_size() -> Callable[[str], Model]:
    """family -> a model of its published size without memory: its tensors are on the meta device."""
    from full_size import full_size_model

    return cache(full_size_model)
