"""States of whole runs: damage is told before the start, the result comes before figures, curves go on,
and old saves go, also those of before a resume.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import make_pictures, run_here

from library.problems import UserError
from library.training.optimization.ledger import Ledger
from library.training.watching.report import Report

SCRIPT = "train_network.py"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "1_cat", 2)
    return folder


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    """Two steps an epoch."""
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--caption_extension", ".txt", "--seed", 3, "--max_data_loader_n_workers", 0),
        *("--network_module", "networks.lora", "--network_dim", 2, "--learning_rate", 1e-3),
        *("--output_name", "k", "--save_state", *more),
    ]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith("k-report")}


def test_saves_of_before_a_resume_are_removed_and_nothing_else(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    keep = ("--save_every_n_epochs", 1, "--save_last_n_epochs", 1)
    run_here(SCRIPT, *words(shallow_model_file, pictures, tmp_path, *keep, "--max_train_epochs", 3))
    assert names(tmp_path) == {"k-000002.safetensors", "k-000002-state", "k.safetensors", "k-state"}
    history = json.loads((tmp_path / "k-state" / "history.json").read_text())
    assert [step for step, _ in history["curves"]["loss/current"]] == [1, 2, 3, 4, 5, 6]

    shutil.copytree(tmp_path, tmp_path.parent / "copy")
    (tmp_path / "k-000001.safetensors").write_text("somebody else's")
    (tmp_path / "k-report.json").unlink()  # as after SIGKILL: written now and then only
    more = (*keep, "--max_train_epochs", 5, "--resume", tmp_path / "k-state")
    run_here(SCRIPT, *words(shallow_model_file, pictures, tmp_path, *more))
    left = {"k-000004.safetensors", "k-000004-state", "k.safetensors", "k-state", "k-000001.safetensors"}
    assert names(tmp_path) == left
    curves = json.loads((tmp_path / "k-report.json").read_text())["curves"]
    assert [step for step, _ in curves["loss/current"]] == list(range(1, 11))

    # A file of that name that this chain of runs did not write stays; damage is told before anything begins.
    other = tmp_path.parent / "copy"
    (other / "k-000002.safetensors").write_text("somebody else's")
    weights = bytearray((other / "k-state" / "model.safetensors").read_bytes())
    weights[-20] ^= 0x55
    (other / "k-state" / "model.safetensors").write_bytes(weights)
    resumed = words(
        shallow_model_file, pictures, other, *keep, "--max_train_epochs", 5, "--resume", other / "k-state"
    )
    before = names(other)
    with pytest.raises(UserError) as caught:
        run_here(SCRIPT, *resumed)
    assert str(caught.value) == (
        f"{other}/k-state/model.safetensors: is damaged: it is not what was saved; "
        "resume from another state, or use it as it is with --skip_state_check"
    )
    assert names(other) == before
    run_here(SCRIPT, *resumed, "--skip_state_check")
    assert names(other) == {*left - {"k-000001.safetensors"}, "k-000002.safetensors"}


def test_no_figure_costs_the_result(
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def breaks(*_: object) -> None:
        assert (tmp_path / "k.safetensors").is_file()
        raise ZeroDivisionError("of figures")

    monkeypatch.setattr(Ledger, "balance", breaks)
    monkeypatch.setattr(Report, "close", breaks)
    run_here(SCRIPT, *words(shallow_model_file, pictures, tmp_path, "--max_train_steps", 1))
    said = capsys.readouterr()
    assert f"done: {tmp_path / 'k.safetensors'}" in said.out
    assert [line for line in said.err.splitlines() if "ZeroDivisionError" in line] == [
        "warning: the table of what was trained could not be made (ZeroDivisionError: of figures); "
        "nothing that is saved depends on it",
        "warning: report failed (ZeroDivisionError: of figures): this run goes on without it",
    ]
