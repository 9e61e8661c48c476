"""The tools on networks that were trained: two LoRAs of the demo's new figure, of two seeds."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call
from learning import MODEL, teach
from torch import Tensor

from library.models import load_model
from library.models.base import Model
from library.models.weights import load_tensors
from library.network.loading import open_network

pytestmark = pytest.mark.long

STEPS, PICTURES, RATIOS = 120, 8, (0.7, 0.4)
LORA = (
    *("--network_module", "networks.lora", "--network_dim", 16, "--network_alpha", 16),
    *("--network_args", "conv_dim=8", "conv_alpha=8", "--learning_rate", 1e-3, "--cache_latents"),
)


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(name) for name in "ab"]
    return [
        teach(folder, "train_network.py", *LORA, "--seed", seed, steps=STEPS)
        for seed, folder in enumerate(folders, 1)
    ]


def run(name: str, *words: object) -> None:
    call(importlib.import_module(f"networks.{name}").main, f"{name}.py", *words)


def pictures(model: Model, networks: Sequence[tuple[Path, float]] = ()) -> np.ndarray:
    """Scenes of the new figure, (n, height, width, 3), by a model with networks at their strengths."""
    from exam import draw_scenes, exam_scenes

    attached = [open_network(model, path) for path, _ in networks]
    for network, (_, strength) in zip(attached, networks, strict=True):
        network.attach()
        network.set_multiplier(strength)
    drawn = draw_scenes(model, exam_scenes("shs", PICTURES))
    return np.stack([np.asarray(picture, int) for picture in drawn])


def differences(first: np.ndarray, second: np.ndarray) -> int:
    """The largest, in levels of 255."""
    return int(np.abs(first - second).max())


def change_of(path: Path) -> dict[str, Tensor]:
    """What a LoRA adds to each weight, straight from its definition."""
    tensors, found = load_tensors(path), {}
    for name in {key.rsplit(".", 2)[0] for key in tensors if key.endswith(".lora_up.weight")}:
        up, down = (tensors[f"{name}.lora_{side}.weight"].double().flatten(1) for side in ("up", "down"))
        found[name] = float(tensors[f"{name}.alpha"]) / len(down) * (up @ down)
    return found


def lost(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The norm of what is missing, as a share of the whole."""
    missing = sum(float((got[name] - change).square().sum()) for name, change in wanted.items())
    return (missing / sum(float(change.square().sum()) for change in wanted.values())) ** 0.5


def least_lost(wanted: dict[str, Tensor], ranks: dict[str, int]) -> float:
    """The same of the best approximation of each layer's change, by all singular values."""
    missing = whole = 0.0
    for name, change in wanted.items():
        squares = torch.linalg.svdvals(change).square()
        missing += float(squares[ranks[name] :].sum())
        whole += float(squares.sum())
    return (missing / whole) ** 0.5


def ranks_of(path: Path) -> dict[str, int]:
    shapes = {key: tensor.shape for key, tensor in load_tensors(path).items()}
    end = ".lora_down.weight"
    return {key.removesuffix(end): shape[0] for key, shape in shapes.items() if key.endswith(end)}


def test_a_merged_checkpoint_draws_what_attached_networks_do(loras: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "merged.safetensors"
    words = ("--sd_model", MODEL, "--models", *loras, "--ratios", *RATIOS, "--save_to", target)
    run("merge_lora", *words, "--save_precision", "float")
    attached = pictures(load_model(MODEL), list(zip(loras, RATIOS, strict=True)))
    assert differences(attached, pictures(load_model(MODEL))) > 60
    assert differences(attached, pictures(load_model(target))) <= 1


def test_side_by_side_two_are_both(loras: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "both.safetensors"
    words = ("--models", *loras, "--ratios", *RATIOS, "--concat", "--save_to", target)
    run("merge_lora", *words, "--save_precision", "float")
    both = pictures(load_model(MODEL), list(zip(loras, RATIOS, strict=True)))
    assert differences(both, pictures(load_model(MODEL), [(target, 1.0)])) <= 1


def test_what_a_smaller_rank_loses_is_the_least_and_is_told(
    loras: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged, small = tmp_path / "merged.safetensors", tmp_path / "small.safetensors"
    ranks = ("--new_rank", 8, "--new_conv_rank", 4)
    run("svd_merge_lora", "--models", *loras, "--ratios", *RATIOS, *ranks, "--save_to", merged)
    first, second = map(change_of, loras)
    total = {name: RATIOS[0] * first[name] + RATIOS[1] * second[name] for name in first}
    _is_best(total, merged, capsys.readouterr().out)
    resizing = ("--new_rank", 4, "--new_conv_rank", 2)
    run("resize_lora", "--model", loras[0], *resizing, "--save_to", small, "--save_precision", "float")
    _is_best(first, small, capsys.readouterr().out)


def _is_best(wanted: dict[str, Tensor], path: Path, told: str) -> None:
    got, best = lost(change_of(path), wanted), least_lost(wanted, ranks_of(path))
    shares = [float(share) / 100 for share in re.findall(r"([\d.]+) ?%", told)]
    print(f"{path.name}: lost {got:.4f}, least {best:.4f}, told {shares}")
    assert 0.01 < best <= got * (1 + 1e-6)
    assert got <= best * 1.01
    assert any(abs(share - got) < 2e-3 for share in shares), told
