"""Cache files know everything that they were made with: another run takes only what is its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import make_pictures, run_here

from library.models import load_model
from library.models.saving import Saving

LATENTS = "--cache_latents_to_disk"
Saved = Callable[[str, str], Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "data" / "1_cat", 2)
    return tmp_path / "data"


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--caption_extension", ".txt", "--seed", 3, "--output_name", "x"),
        *("--network_module", "networks.lora", "--network_dim", 2, "--network_train_unet_only"),
        *("--max_train_steps", 1, "--max_data_loader_n_workers", 0, "--save_model_as", "safetensors"),
        *("--cache_text_encoder_outputs_to_disk", *more),
    ]


def test_text_of_an_sdxl_model_with_another_second_text_encoder_is_not_taken(
    saved_kind: Saved, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = saved_kind("sdxl", "safetensors")
    model = load_model(first)
    with torch.no_grad():
        model.text_encoders[1].text_projection.weight.mul_(2)
    model.save(tmp_path / "second.safetensors", Saving("safetensors"))
    for path, said in (
        (first, "0 were there already, 2 made"),
        (
            tmp_path / "second.safetensors",
            "0 were there already, 0 made, 2 made again (2 another text encoder)",
        ),
        (tmp_path / "second.safetensors", "2 were there already, 0 made"),
    ):
        run_here("sdxl_train_network.py", *words(path, pictures, tmp_path / "out"))
        assert f"text outputs on disk: {said}\n" in capsys.readouterr().out


def test_text_made_with_weights_in_float8_is_not_taken_for_that_of_whole_ones(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for more, said in (
        ((), "0 were there already, 2 made"),
        (("--fp8_base",), "0 were there already, 0 made, 2 made again (2 other precision)"),
        (("--fp8_base",), "2 were there already, 0 made"),
        ((), "0 were there already, 0 made, 2 made again (2 other precision)"),
    ):
        run_here("train_network.py", *words(tiny_model_file, pictures, tmp_path / "out", *more))
        assert f"text outputs on disk: {said}\n" in capsys.readouterr().out


def test_the_same_weights_with_other_settings_are_another_model(
    saved_kind: Saved, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Norm groups and heads are in configurations, not in weights."""
    shutil.copytree(saved_kind("sd1", "diffusers_safetensors"), tmp_path / "model")
    changes = {"vae": {"norm_num_groups": 4}, "text_encoder": {"num_attention_heads": 4}}
    for more, said in (
        ({}, ("2 made", "2 made")),
        (changes, ("0 made, 2 made again (2 other settings",) * 2),
    ):
        for part, values in more.items():
            path = tmp_path / "model" / part / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | values))
        run_here("train_network.py", *words(tmp_path / "model", pictures, tmp_path / "out", LATENTS))
        printed = capsys.readouterr().out
        for what, words_of in zip(("latents", "text outputs"), said, strict=True):
            assert f"{what} on disk: 0 were there already, {words_of}" in printed


def test_cache_files_from_before_settings_were_recorded_are_taken(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for kept in (True, False):
        run_here("train_network.py", *words(tiny_model_file, pictures, tmp_path / "out", LATENTS))
        if kept:
            for path in pictures.rglob("*.npz"):
                forget_settings(path)
            capsys.readouterr()
    assert capsys.readouterr().out.count("2 were there already, 0 made") == 2


def forget_settings(path: Path) -> None:
    """Makes a cache file what it was before its recipe had settings."""
    with np.load(path) as arrays:
        contents = dict(arrays)
    recipe = json.loads(str(contents["atelier"][()]))
    assert recipe.pop("settings")
    np.savez(path, **contents | {"atelier": np.array(json.dumps(recipe))})
