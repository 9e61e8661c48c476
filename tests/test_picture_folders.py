"""Which pictures of a folder train, and how often, end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import make_pictures, run_here
from trainers import weights


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--caption_extension", ".txt", "--learning_rate", 1e-3, "--seed", 3),
        *("--output_name", "x", "--use_safetensors", "--max_data_loader_n_workers", 0, *more),
    ]


def test_fine_tuning_trains_a_plain_folder_as_a_class_folder_of_captioned_pictures(
    tiny_model_file: Path, tmp_path: Path
) -> None:
    classes = make_pictures(tmp_path / "data" / "1_sks", 3).parent
    plain = shutil.copytree(classes / "1_sks", tmp_path / "plain")
    steps = ("--max_train_steps", 2)
    run_here("train_db.py", *words(tiny_model_file, classes, tmp_path / "classes", *steps))
    run_here("train_db.py", *words(tiny_model_file, plain, tmp_path / "out", *steps, "--fine_tuning"))
    assert weights(tmp_path / "out" / "x.safetensors") == weights(tmp_path / "classes" / "x.safetensors")


@pytest.mark.parametrize("script", ["train_db.py", "fine_tune.py"])
def test_dataset_repeats_repeats_every_picture_within_an_epoch(
    script: str, tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_pictures(tmp_path / "data" / "1_sks", 2)
    more: list[object] = ["--max_train_epochs", 1, "--dataset_repeats", 3]
    pictures = folder.parent
    if script == "fine_tune.py":
        captions = {path.stem: {"caption": path.stem} for path in folder.glob("*.png")}
        (tmp_path / "captions.json").write_text(json.dumps(captions))
        pictures, more = folder, [*more, "--in_json", tmp_path / "captions.json"]
    run_here(script, *words(tiny_model_file, pictures, tmp_path / "out", *more))
    assert "what steps 0 to 6 trained:" in capsys.readouterr().out
