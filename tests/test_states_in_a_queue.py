"""A run of a queue saves states by itself, and does not go on with data that changed meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import make_pictures, run_here

from library import queued
from library.problems import UserError
from library.queued import SUMMARY, QueuedRun
from library.training.saving import disk_space


@pytest.fixture
def words(tmp_path: Path, shallow_model_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Of a run of a queue that saves a state after each step."""
    monkeypatch.setattr(queued, "RUN", QueuedRun(tmp_path, "key", 1, tmp_path / "runner", 0.0))
    make_pictures(tmp_path / "data" / "1_sks cat", 3)
    return [
        *("--pretrained_model_name_or_path", shallow_model_file, "--train_data_dir", tmp_path / "data"),
        *("--resolution", 64, "--caption_extension", ".txt", "--network_module", "networks.lora"),
        *(
            "--network_dim",
            2,
            "--seed",
            3,
            "--max_data_loader_n_workers",
            0,
            "--output_dir",
            tmp_path / "out",
        ),
        *("--output_name", "x"),
    ]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").glob("*-state"))


def test_one_state_is_kept_and_one_of_the_user_s_is_never_removed(
    words: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_here("train_network.py", *words, "--max_train_steps", 4)
    assert left(tmp_path) == ["x-step00000003-state"]
    told = json.loads((tmp_path / SUMMARY).read_text())
    assert told["step"] == 4 and told["loss"] > 0 and told["pictures"] == []

    monkeypatch.setattr(queued, "RUN", QueuedRun(tmp_path, "another key", 1, tmp_path / "runner", 0.0))
    state = tmp_path / "out" / "x-step00000003-state"
    run_here("train_network.py", *words, "--max_train_steps", 6, "--resume", state)
    assert left(tmp_path) == ["x-step00000003-state", "x-step00000005-state"]

    monkeypatch.setattr(disk_space, "bytes_at_once", lambda run, task: 2**70)
    monkeypatch.setattr("library.training.start.preparation.check_space", lambda run, task: None)
    run_here("train_network.py", *words, "--max_train_steps", 7, "--resume", state)
    assert left(tmp_path) == ["x-step00000003-state", "x-step00000005-state"]
    cause = "has no room for a state after step 4, which would let this run go on from there"
    assert f"warning: {tmp_path / 'out'}: {cause}; make room; training goes on" in capsys.readouterr().err


def test_data_that_changed_since_the_run_s_own_state_ends_it(words: list[object], tmp_path: Path) -> None:
    run_here("train_network.py", *words, "--max_train_steps", 2)
    own = ("--max_train_steps", 4, "--resume", tmp_path / "out" / "x-step00000001-state")
    caption = tmp_path / "data" / "1_sks cat" / "0_01.txt"
    before = caption.read_text()

    caption.write_text("a dog")
    with pytest.raises(
        UserError, match="training data: since step 1, where this run goes on, .*; restore it"
    ):
        run_here("train_network.py", *words, *own)
    caption.write_text(before)
    make_pictures(tmp_path / "data" / "1_sks cat", 1, seed=7)
    with pytest.raises(UserError, match="training data: has changed since step 1, where this run goes on"):
        run_here("train_network.py", *words, *own)
