"""The report of a run: whole in itself, going on after a resume, and nothing of this machine in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import make_pictures, run_here

from library.problems import run_command
from library.training.tasks.task import Task


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a <b> & c --w 64 --h 64 --s 1 --d 5\n")
    make_pictures(tmp_path / "data" / "1_cat", 6)
    return path


def words(model: Path, prompts: Path, out: str, *more: object) -> list[object]:
    folder = prompts.parent
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", folder / "data"),
        *("--resolution", 64, "--caption_extension", ".txt", "--seed", 3, "--max_data_loader_n_workers", 0),
        *("--network_module", "networks.lora", "--network_dim", 2, "--validation_split", 0.3),
        *("--validate_every_n_steps", 2, "--sample_prompts", prompts, "--sample_every_n_steps", 2),
        *("--learning_rate", 1e-3, "--output_dir", folder / out, "--output_name", "x", "--save_state", *more),
    ]


def curves(folder: Path) -> dict:
    return json.loads((folder / "x-report.json").read_text())["curves"]


def test_a_run_leaves_a_page_that_goes_on_after_a_resume(
    shallow_model_file: Path, prompts: Path, tmp_path: Path
) -> None:
    run_here("train_network.py", *words(shallow_model_file, prompts, "whole", "--max_train_steps", 6))
    run_here(
        "train_network.py",
        *words(shallow_model_file, prompts, "parts", "--max_train_steps", 6, "--save_every_n_steps", 3),
    )
    state = tmp_path / "parts" / "x-step00000003-state"
    run_here(
        "train_network.py",
        *words(shallow_model_file, prompts, "parts", "--max_train_steps", 6, "--resume", state),
    )
    whole, parts = curves(tmp_path / "whole"), curves(tmp_path / "parts")
    assert whole == parts
    assert [step for step, _ in whole["loss/current"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in whole["loss/validation"]] == [2, 4, 6]

    page = (tmp_path / "parts" / "x-report.html").read_text(encoding="utf-8")
    assert "step 6 of 6" in page and ">done<" in page
    assert re.findall(r'href="#(\w+)"', page) == [
        "curves",
        "previews",
        "ledger",
        "time",
        "dataset",
        "settings",
        "rerun",
    ]
    parts = re.findall(r'class="label">([a-z ]+)</span><span class="track"><span class="', page)
    assert parts[:4] == ["waiting for data", "forward", "backward", "optimizer"] and "previews" in parts
    assert page.count("data:image/webp") == 3 and "a &lt;b&gt; &amp; c" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert (
        str(tmp_path) not in page and str(tmp_path) not in (tmp_path / "parts" / "x-report.json").read_text()
    )
    assert (
        "learning_rate = 0.001" in page and "accelerate launch train_network.py --config_file x.toml" in page
    )


def test_a_full_training_and_a_folder_result_have_one_too(
    shallow_model_file: Path, prompts: Path, tmp_path: Path
) -> None:
    data = ("--train_data_dir", tmp_path / "data", "--resolution", 64, "--caption_extension", ".txt")
    model = (
        "--pretrained_model_name_or_path",
        shallow_model_file,
        "--save_model_as",
        "diffusers_safetensors",
    )
    saving = ("--output_dir", tmp_path / "out", "--output_name", "x", "--max_train_steps", 1)
    run_here("train_db.py", *model, *data, *saving, "--max_data_loader_n_workers", 0)
    assert (tmp_path / "out" / "x").is_dir()
    assert "train_db.py on sd1.safetensors" in (tmp_path / "out" / "x-report.html").read_text()


def test_it_can_be_left_out_and_changes_nothing(
    shallow_model_file: Path, prompts: Path, tmp_path: Path
) -> None:
    for out, more in (("with", ()), ("without", ("--no_report",))):
        run_here("train_network.py", *words(shallow_model_file, prompts, out, "--max_train_steps", 2, *more))
    tensors = [(tmp_path / out / "x-state" / "model.safetensors").read_bytes() for out in ("with", "without")]
    assert tensors[0] == tensors[1]
    assert not list((tmp_path / "without").glob("x-report*")) and list((tmp_path / "with").glob("x-report*"))


def test_it_shows_what_the_run_warned_of_and_nothing_of_another(
    shallow_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pictures(tmp_path / "data" / "1_cat", 4)
    (tmp_path / "data" / "notes").mkdir()
    model = ("--pretrained_model_name_or_path", shallow_model_file, "--train_data_dir", tmp_path / "data")
    data = ("--resolution", 64, "--caption_extension", ".txt", "--max_data_loader_n_workers", 0)
    common = (*model, *data, "--output_dir", tmp_path, "--max_train_steps", 2, "--use_safetensors")

    def warned(name: str, *more: object) -> list[str]:
        run_command(lambda: run_here("train_db.py", *common, "--output_name", name, *more))
        page = (tmp_path / f"{name}-report.html").read_text(encoding="utf-8")
        assert str(tmp_path) not in page
        return re.findall(r'<li class="warn">(.*?)</li>', page)

    folders = "data: folders whose name does not begin with a number are left out: &#x27;notes&#x27;"
    first = warned("first", "--save_last_n_steps", 5)
    assert folders in first and any("--save_last_n_steps" in line for line in first)
    losses = Task.losses
    monkeypatch.setattr(Task, "losses", lambda *args: losses(*args) * float("nan"))
    second = warned("second")
    assert folders in second and not any("--save_last_n_steps" in line for line in second)
    assert [line.partition(";")[0] for line in second if line.startswith("step ")] == [
        "step 1: the loss is nan",
        "step 2: the loss is nan",
    ]
