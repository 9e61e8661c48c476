"""Options that are not what they were when a state was saved: each is named, none takes effect silently."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import make_pictures, run_here
from PIL import Image

from library.problems import UserError
from library.training.saving.settings import Change, changes


@pytest.fixture(scope="module")
def saved(shallow_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, and a run's result and state after one step."""
    folder = tmp_path_factory.mktemp("saved")
    make_pictures(folder / "data" / "1_cat", 3)
    run_here("train_network.py", *words(shallow_model_file, folder, "--max_train_steps", 1, "--save_state"))
    return folder


def words(model: Path, folder: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", folder / "data"),
        *("--resolution", 64, "--caption_extension", ".txt", "--seed", 3, "--max_data_loader_n_workers", 0),
        *("--network_module", "networks.lora", "--network_dim", 2, "--network_args", "conv_dim=1"),
        *("--learning_rate", 1e-3, "--output_dir", folder, "--output_name", "x", *more),
    ]


def resumed(model: Path, folder: Path, *more: object) -> list[object]:
    return words(model, folder, "--resume", folder / "x-state", "--max_train_steps", 2, *more)


def warnings(capsys: pytest.CaptureFixture) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: --")]


def test_what_may_change_is_one_line_each(
    shallow_model_file: Path, saved: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ("--learning_rate", 5e-4, "--noise_offset", 0.1, "--flip_aug", "--weighted_captions")
    arguments = ("--optimizer_args", "weight_decay=0", "--network_args", "conv_dim=1", "rank_dropout=0.1")
    run_here("train_network.py", *resumed(shallow_model_file, saved, *more, *arguments))
    assert sorted(warnings(capsys)) == [
        "--flip_aug was off until step 1; from there on it is on",
        "--learning_rate was 0.001 until step 1; from there on it is 0.0005",
        "--max_train_steps was 1 until step 1; from there on it is 2",
        "--network_args rank_dropout was not given until step 1; from there on it is 0.1",
        "--noise_offset was not given until step 1; from there on it is 0.1",
        "--optimizer_args weight_decay was not given until step 1; from there on it is 0",
        "--weighted_captions was off until step 1; from there on it is on",
    ]


def test_edited_pictures_and_captions_are_named_and_trained(
    shallow_model_file: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))  # with other times, but the same content
    pictures = sorted((folder / "data" / "1_cat").glob("*.png"))
    Image.new("RGB", (64, 64)).save(pictures[1])
    pictures[2].with_suffix(".txt").write_text("another caption")
    run_here("train_network.py", *resumed(shallow_model_file, folder, "--output_name", "y"))
    err = capsys.readouterr().err.splitlines()
    ending = "from there on they are trained as they are now"
    assert [line for line in err if "was edited:" in line] == [
        f"warning: since step 1, 1 picture was edited: 1_cat/{pictures[1].name}; {ending}",
        f"warning: since step 1, 1 caption was edited: 1_cat/{pictures[2].name}; {ending}",
    ]
    assert (folder / "y.safetensors").is_file()


def test_what_was_learned_with_a_setting_needs_it(
    shallow_model_file: Path, saved: Path, shallow_kind, tmp_path: Path
) -> None:
    other = shutil.copy(shallow_kind("sd2", "safetensors"), tmp_path / "other.safetensors")
    more = (
        "--network_alpha",
        2,
        "--clip_skip",
        2,
        "--vae",
        other,
        "--network_args",
        "conv_dim=1",
        "conv_alpha=2",
    )
    with pytest.raises(UserError) as caught:
        run_here("train_network.py", *resumed(other, saved, *more))
    saved_so = "when the state was saved; give that again, or start a new run from the saved weights"
    model = "--pretrained_model_name_or_path"
    assert [str(problem) for problem in caught.value.problems] == [
        f"--clip_skip: is 2, but was not given {saved_so}",
        f"{model}: is other.safetensors, but was sd1.safetensors {saved_so}",
        f"--vae: is other.safetensors, but was not given {saved_so}",
        f"--network_alpha: is 2.0, but was 1.0 {saved_so}",
        f"--network_args conv_alpha: is 2, but was not given {saved_so}",
    ]


def test_a_model_under_another_name_is_the_same_model(
    shallow_model_file: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = shutil.copy(shallow_model_file, tmp_path / "renamed.safetensors")
    run_here("train_network.py", *resumed(moved, saved))
    assert warnings(capsys) == ["--max_train_steps was 1 until step 1; from there on it is 2"]


def test_a_state_holds_no_absolute_path(saved: Path) -> None:
    text = (saved / "x-state" / "train_state.json").read_text()
    assert str(saved) not in text and json.loads(text)["settings"]["learning_rate"] == 1e-3


def test_settings_that_one_side_does_not_know_are_no_changes() -> None:
    """A state of an older version, or of another trainer; arguments are there or not."""
    assert changes({"a": 1, "gone": 2}, {"a": 1, "new": 3}) == []
    assert changes({"network_args.x": "1"}, {}) == [Change("network_args.x", "1", "not given")]
    assert changes({"a": [1, True]}, {"a": [1, False]}) == [Change("a", "1,on", "1,off")]
