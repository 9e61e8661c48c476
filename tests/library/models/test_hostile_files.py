"""What is no model, no LoRA and no VAE is one line at once, whatever it holds."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile_files import Hostile, Tensors, folders, loras, models
from kinds import write_lora

from library.models import load_model
from library.models.base import Model
from library.models.weights import load_tensors
from library.network.loading import open_network
from library.problems import UserError


@pytest.fixture(scope="module")
def model(tiny_model_file: Path) -> Model:
    """What LoRAs are for. Not to be changed."""
    return load_model(tiny_model_file)


@pytest.fixture(scope="module")
def model_tensors(tiny_model_file: Path) -> Tensors:
    return load_tensors(tiny_model_file)


@pytest.fixture(scope="module")
def lora_tensors(tiny_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    path = tmp_path_factory.mktemp("lora") / "x.safetensors"
    return load_tensors(write_lora(path, tiny_model_file, 0.1))


def by_name(cases: list[Hostile]) -> dict[str, Hostile]:
    return {case.name: case for case in cases}


def refused(path: Path, use: Callable[[Path], object], said: str) -> None:
    """It is one line with this in it, under 2 s and 300 MB."""
    before, begun = _peak(), time.process_time()
    with pytest.raises(UserError) as error:
        use(path)
    assert time.process_time() - begun < 2 and _peak() - before < 300_000_000
    (problem,) = error.value.problems
    assert said in str(problem) and len(str(problem).splitlines()) == 1
    assert str(path) in str(problem)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", by_name(models()))
def test_a_file_that_is_no_model(name: str, model_tensors: Tensors, tmp_path: Path) -> None:
    case = by_name(models())[name]
    case.make(tmp_path / name, model_tensors)
    refused(tmp_path / name, load_model, case.said)


@pytest.mark.parametrize("name", by_name(folders()))
def test_a_folder_that_is_no_model(name: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model_folder, tmp_path / name)
    case = by_name(folders())[name]
    case.make(tmp_path / name, {})
    refused(tmp_path / name, load_model, case.said)


@pytest.mark.parametrize("name", by_name(loras()))
def test_a_file_that_is_no_lora(name: str, model: Model, lora_tensors: Tensors, tmp_path: Path) -> None:
    case = by_name(loras())[name]
    case.make(tmp_path / name, lora_tensors)
    refused(tmp_path / name, lambda path: open_network(model, path), case.said)


def test_a_pipe_is_never_waited_for(model: Model, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "x.safetensors")
    for use in (load_model, lambda path: open_network(model, path)):
        refused(tmp_path / "x.safetensors", use, "is a pipe or a device, not a file")


def test_good_files_of_these_kinds_are_read(
    model: Model, model_tensors: Tensors, lora_tensors: Tensors, tmp_path: Path
) -> None:
    """What is refused above is refused for its fault."""
    from library.models.weights import save_tensors

    save_tensors(tmp_path / "lora.ckpt", lora_tensors)
    found = open_network(model, tmp_path / "lora.ckpt").tensors()
    assert all(torch.equal(found[name], tensor) for name, tensor in lora_tensors.items())
