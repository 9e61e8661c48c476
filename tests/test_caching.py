"""Caches in real runs: the same result from memory and disk, in one process and in two, resumed or not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import launch, make_pictures, run_here
from safetensors.torch import load_file

from library.data.training_data import TrainingData
from library.problems import UserError

LATENTS, TEXT = "--cache_latents", "--cache_text_encoder_outputs"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "data" / "1_cat", 5)
    make_pictures(tmp_path / "data" / "1_cat", 2, size=(96, 32), seed=9)
    return tmp_path / "data"


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--enable_bucket", "--min_bucket_reso", 32, "--max_bucket_reso", 128),
        *("--bucket_reso_steps", 32, "--caption_extension", ".txt", "--caption_prefix", "photo:"),
        *("--train_batch_size", 2, "--learning_rate", 1e-3, "--seed", 3, "--output_name", "x"),
        *("--network_module", "networks.lora", "--network_dim", 2, "--network_train_unet_only"),
        *("--caption_dropout_rate", 0.2, "--flip_aug", "--max_data_loader_n_workers", 0, *more),
    ]


def same(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one / "x.safetensors"), load_file(other / "x.safetensors")
    return ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


def test_caches_in_memory_and_on_disk_train_the_same_and_files_are_used_again(
    any_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def train(out: str, *more: object) -> Path:
        steps = ("--max_train_steps", 4)
        run_here("train_network.py", *words(any_model_file, pictures, tmp_path / out, *steps, *more))
        return tmp_path / out

    memory = train("memory", LATENTS, TEXT)
    assert not list(pictures.rglob("*.npz"))
    disk = train("disk", f"{LATENTS}_to_disk", f"{TEXT}_to_disk")
    assert "7 made" in capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in pictures.rglob("*.npz")}
    assert len(files) == 2 * 7
    again = train("again", f"{LATENTS}_to_disk", f"{TEXT}_to_disk")
    assert "7 were there already, 0 made" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in pictures.rglob("*.npz")} == files
    assert same(memory, disk) and same(disk, again)


def test_two_processes_share_the_caching_and_train_what_one_does(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures, tmp_path / "copy")
    disk = (f"{LATENTS}_to_disk", f"{TEXT}_to_disk", "--max_train_steps", 4)
    plain = ("--optimizer_type", "SGDNesterov", "--max_grad_norm", 0, "--learning_rate", 0.01)
    run_here("train_network.py", *words(shallow_model_file, pictures, tmp_path / "one", *disk, *plain))
    two = words(
        shallow_model_file, tmp_path / "copy", tmp_path / "two", *disk, *plain, "--train_batch_size", 1
    )
    launch("train_network.py", *two, processes=2)
    names = [sorted(path.name for path in folder.rglob("*.npz")) for folder in (pictures, tmp_path / "copy")]
    assert names[0] == names[1] and len(names[0]) == 2 * 7
    one, two = (load_file(tmp_path / out / "x.safetensors") for out in ("one", "two"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-6


def test_validation_does_not_touch_the_training_and_a_resumed_run_measures_the_same(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def train(out: str, steps: int, *more: object) -> list[str]:
        split = ("--validation_split", 0.3, LATENTS, "--max_train_steps", steps, "--save_state")
        run_here("train_network.py", *words(shallow_model_file, pictures, tmp_path / out, *split, *more))
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("validation")]

    measured = train("whole", 6, "--validate_every_n_steps", 2)
    assert [line.split(":")[0] for line in measured] == [f"validation after step {n}" for n in (2, 4, 6)]
    assert all("(2 images)" in line for line in measured)
    assert train("rare", 6, "--validate_every_n_steps", 6) == measured[2:]
    assert same(tmp_path / "whole", tmp_path / "rare")
    train("first", 3, "--validate_every_n_steps", 2)
    second = train("second", 6, "--validate_every_n_steps", 2, "--resume", tmp_path / "first" / "x-state")
    assert second == measured[1:]
    assert same(tmp_path / "whole", tmp_path / "second")


def test_a_held_out_image_that_became_unreadable_loses_nothing(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []

    def scan_then_break(*arguments: object, **more: object) -> TrainingData:
        data = real_scan(*arguments, **more)
        found.append(data.validation.records[0].image)
        found[0].write_bytes(found[0].read_bytes()[:100])
        return data

    real_scan = TrainingData.scan
    monkeypatch.setattr(TrainingData, "scan", scan_then_break)
    steps = ("--max_train_steps", 4, "--validation_split", 0.3, "--validate_every_n_steps", 2)
    with pytest.raises(UserError) as caught:
        run_here("train_network.py", *words(shallow_model_file, pictures, tmp_path / "out", *steps))
    broken, saved = caught.value.problems
    assert broken.where == str(found[0]) and saved.cause == "the state was saved"

    monkeypatch.setattr(TrainingData, "scan", real_scan)
    found[0].unlink()
    more = ("--resume", tmp_path / "out" / "x-step00000002-state", "--max_train_steps", 4)
    run_here("train_network.py", *words(shallow_model_file, pictures, tmp_path / "out", *more))
    assert (tmp_path / "out" / "x.safetensors").exists()
