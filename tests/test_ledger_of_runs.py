"""The ledger at the end of a run, end to end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from commands import make_pictures, run_here

from library.problems import UserError
from library.training.tasks.task import Task


def words(model: Path, tmp_path: Path, *more: object) -> list[object]:
    pictures = tmp_path / "data"
    if not pictures.exists():
        make_pictures(pictures / "1_sks", 4)
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--resolution", 64),
        *("--output_dir", tmp_path, "--caption_extension", ".txt", "--train_batch_size", 2, "--seed", 3),
        *("--learning_rate", 1e-3, "--output_name", "x", "--use_safetensors", *more),
        *("--max_data_loader_n_workers", 0),
    ]


def table(printed: str) -> dict[str, str]:
    """Each part's row, and of which steps it tells."""
    lines = printed[printed.index("what steps") :].splitlines()
    rows = {line.split("  ")[0].strip(): line for line in lines[2:] if "  " in line}
    return {"steps": lines[0]} | rows


def test_a_resumed_run_tells_of_the_whole(
    shallow_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run_here("train_db.py", *words(shallow_model_file, tmp_path, "--max_train_steps", 4))
    whole = table(capsys.readouterr().out)
    assert whole["steps"] == "what steps 0 to 4 trained:"
    assert set(whole) == {"steps", "U-Net", "text encoder"}
    assert re.search(r"U-Net +[\d,]+ +[\d.]+ % +[\d.]+$", whole["U-Net"])
    run_here("train_db.py", *words(shallow_model_file, tmp_path, "--max_train_steps", 2, "--save_state"))
    more = ("--resume", tmp_path / "x-state", "--max_train_steps", 4)
    run_here("train_db.py", *words(shallow_model_file, tmp_path, *more))
    assert table(capsys.readouterr().out.rpartition("done:")[2]) == whole


def test_a_part_that_nothing_reaches_ends_in_an_error_after_everything_was_saved(
    shallow_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "condition", torch.no_grad()(Task.condition))
    common = words(shallow_model_file, tmp_path, "--max_train_steps", 10, "--optimizer_type", "SGDNesterov")
    with pytest.raises(UserError, match="^text encoder: was to be trained and did not move in steps 0 to 10"):
        run_here("train_db.py", *common)
    assert (tmp_path / "x.safetensors").is_file()


def test_what_is_not_to_move_is_no_error(
    shallow_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Warmed up from a rate of 0, the first step moves nothing; the text encoder stops before it began."""
    never = ("--max_train_steps", 1, "--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", 5)
    run_here("train_db.py", *words(shallow_model_file, tmp_path, *never))
    rows = table(capsys.readouterr().out)
    assert " 0 % " in rows["U-Net"] and " 0 % " in rows["text encoder"]


def test_an_optimizer_whose_first_steps_move_nothing_is_a_warning(
    shallow_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    radam = ("--optimizer_type", "RAdamScheduleFree", "--max_train_steps", 2)
    run_here("train_db.py", *words(shallow_model_file, tmp_path, *radam))
    said = capsys.readouterr().err
    assert "warning: U-Net was to be trained and did not move in steps 0 to 2; in 2 steps that may be" in said
