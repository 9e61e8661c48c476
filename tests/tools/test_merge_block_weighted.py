"""Merging with a share for every block."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from commands import run_here
from torch.testing import assert_close

from library.models.saving import Saving
from library.models.weights import load_tensors
from library.options.block_presets import PRESETS, for_sdxl, read_weights
from library.options.model_tools import BlockMergeOptions
from library.problems import UserError
from tools import make_tiny_model
from tools.merge_block_weighted import shares

DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "block_presets.json").read_text())
UNET = "model.diffusion_model."


def test_presets_are_those_of_the_notebooks() -> None:
    assert PRESETS.keys() == GOLDEN["presets"].keys()
    for name, weights in GOLDEN["presets"].items():
        assert PRESETS[name] == pytest.approx(weights, abs=1e-9), name


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_tensor_of_a_full_size_model_is_in_its_block(family: str) -> None:
    keys = json.loads((DATA / f"{family}_keys.json").read_text())["unet"]
    names = [original for original, *_ in keys]
    count = 19 if family == "sdxl" else 25
    numbers = ",".join(map(str, range(count)))
    options = BlockMergeOptions(model_0="a", model_1="b", base_alpha=0.25, weights=read_weights(numbers))
    share = shares(names, family, options)
    found = Counter("base" if share(name) == 0.25 else f"{share(name):g}" for name in names)
    assert found == GOLDEN["keys"][family]
    assert share(f"{UNET}out.2.weight") == count - 1
    assert share(f"{UNET}time_embed.0.weight") == 0
    assert share("first_stage_model.encoder.conv_in.weight") == 0.25


def test_weights_are_numbers_or_names() -> None:
    plain = ",".join(["0.5"] * 25)
    assert read_weights(plain) == (None, (0.5,) * 25)
    assert read_weights(f"0.1,{plain}") == (0.1, (0.5,) * 25)  # as SuperMerger writes them
    assert read_weights("grad_v") == (None, PRESETS["GRAD_V"])
    assert for_sdxl(tuple(range(25))) == (*range(9), 12, *range(13, 22))
    for wrong in ("", "GRAD_X", "0.5,many", "nan" + ",1" * 24):
        with pytest.raises(ValueError, match="expects numbers with commas between or one of GRAD_V, "):
            read_weights(wrong)
    with pytest.raises(ValueError, match="expects 25 numbers, 19 for SDXL, .* got 2"):
        read_weights("0.5,0.5")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """Two tiny SD 1.x with as many blocks as large ones."""
    monkeypatch.setitem(make_tiny_model._UNETS["sd1"], "layers_per_block", 2)
    paths = (tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    for seed, path in enumerate(paths):
        make_tiny_model.tiny_model("sd1", seed=seed).save(path, Saving("safetensors"))
    return paths


def test_each_block_has_its_own_share(models: tuple[Path, Path], tmp_path: Path) -> None:
    numbers = [round(0.04 * number, 2) for number in range(25)]
    words = ("--base_alpha", 0.3, "--weights", ",".join(map(str, numbers)))
    run_here("tools.merge_block_weighted", *models, *words, "--output", tmp_path / "x.safetensors")
    first, second, merged = map(load_tensors, (*models, tmp_path / "x.safetensors"))
    for name, share in {
        f"{UNET}time_embed.0.weight": 0.0,
        f"{UNET}input_blocks.4.0.in_layers.2.weight": 0.16,
        f"{UNET}middle_block.0.in_layers.2.weight": 0.48,
        f"{UNET}output_blocks.11.0.in_layers.2.weight": 0.96,
        f"{UNET}out.2.weight": 0.96,
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight": 0.3,
    }.items():
        assert_close(merged[name], torch.lerp(first[name], second[name], share), msg=name)


def test_old_commands_write_the_file_they_wrote(models: tuple[Path, Path], tmp_path: Path) -> None:
    run_here("tools.merge_block_weighted", *models, "--base_alpha", 0.25, "--output", tmp_path / "mine")
    merged, first, second = (load_tensors(p) for p in (tmp_path / "mine-250-bw.ckpt", *models))
    name = f"{UNET}output_blocks.3.0.in_layers.2.weight"
    assert_close(merged[name], torch.lerp(first[name], second[name], 0.25))


def test_weights_of_another_family_are_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("--weights", ",".join(["0.5"] * 19), "--output", tmp_path / "x.safetensors")
    with pytest.raises(
        UserError, match="--weights: has 19 numbers, the U-Net of an SD 1.x model has 25 blocks"
    ):
        run_here("tools.merge_block_weighted", *models, *words)
    with pytest.raises(UserError, match="is read, so it is not written"):
        run_here("tools.merge_block_weighted", *models, "--output", models[0])
    assert not (tmp_path / "x.safetensors").exists()
