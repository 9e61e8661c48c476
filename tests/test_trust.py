"""What happens to a run, and what is left of it: signals, kills, a full disk, damaged files."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ROOT, make_pictures, run_here
from safetensors.torch import load_file

from library.files import NotWritten
from library.models import weights
from library.models.ldm.model import LatentDiffusion
from library.problems import UserError, run_command


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "1_sks thing", 4)
    return folder


def options(model: Path, pictures: Path, out: Path, *more: object) -> list[str]:
    words = (
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--train_batch_size", 2, "--seed", 3, "--output_name", "x"),
        *("--max_data_loader_n_workers", 0, "--network_module", "networks.lora", "--network_dropout", 0.1),
        *("--learning_rate", 1e-3, "--max_train_steps", 4, *more),
    )
    return [str(word) for word in words]


def test_a_run_stopped_while_caching_says_what_is_kept(
    shallow_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = make_pictures(tmp_path / "data" / "1_x", 6)
    monkeypatch.setattr("library.stopping.GRACE", 3600)  # it would end the tests, too
    encode = LatentDiffusion.encode_images

    def stop_in_batch(last: int, *more: object) -> str:
        batches = []

        def encode_or_stop(*arguments):
            batches.append(arguments)
            if len(batches) == last:
                signal.raise_signal(signal.SIGTERM)
            return encode(*arguments)

        monkeypatch.setattr(LatentDiffusion, "encode_images", encode_or_stop)
        words = options(shallow_model_file, tmp_path / "data", tmp_path / "out", *more)
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: run_here("train_network.py", *words), unfinished="nothing to save")
        assert ended.value.code == 143
        return capsys.readouterr().err.splitlines()[-1]

    in_memory = ("--cache_latents", "--vae_batch_size", 2)
    assert stop_in_batch(2, *in_memory) == "stopped: nothing to save"
    kept = "4 of 6 latents are cached; the same command goes on from there"
    assert stop_in_batch(3, *in_memory, "--cache_latents_to_disk") == f"stopped: {kept}"
    assert len(list(folder.glob("*.npz"))) == 4


def test_a_full_disk_does_not_end_a_run(
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Its previews find no room either, and change nothing of what is learned."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one --w 64 --h 64 --s 1\n")
    saving = ("--save_every_n_steps", 1, "--save_state", "--sample_prompts", prompts)
    saving += ("--sample_every_n_steps", 1)
    run_here("train_network.py", *options(shallow_model_file, pictures, tmp_path / "whole", *saving))
    capsys.readouterr()
    write, full = weights._write_safetensors, []

    def write_safetensors(path: Path, *more: object) -> None:
        out = tmp_path / "full"
        is_full = (out / "x-step00000001-state").exists() and not (out / "room").exists()
        if is_full:
            full.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *more)

    monkeypatch.setattr(weights, "_write_safetensors", write_safetensors)
    monkeypatch.setattr(
        "library.training.watching.preview.save_picture", _no_picture_at(2, tmp_path / "full")
    )
    run_here("train_network.py", *options(shallow_model_file, pictures, tmp_path / "full", *saving))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith("training goes on")]
    file, ending = tmp_path / "full" / "x-step00000002.safetensors", "make room; training goes on"
    reason = "could not be written (No space left on device)"
    assert lines == [f"warning: {file}: {reason}; {ending}", f"warning: a picture: {reason}; {ending}"]
    assert len(full) == 1  # a save ends at the first
    names = {path.name for path in (tmp_path / "full").iterdir()} - {"room", "sample"}
    whole = {path.name for path in (tmp_path / "whole").iterdir()} - {"sample"}
    assert whole - names == {"x-step00000002.safetensors", "x-step00000002-state"} and names < whole
    first, second = (load_file(tmp_path / name / "x.safetensors") for name in ("whole", "full"))
    assert all(bool((first[key] == second[key]).all()) for key in first)


@pytest.mark.parametrize("room", [True, False])
def test_a_result_that_finds_no_room_goes_to_the_temporary_files(
    room: bool, shallow_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = options(shallow_model_file, pictures, tmp_path / "out")
    run_here("train_network.py", *words)
    whole = load_file(tmp_path / "out" / "x.safetensors")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    save = weights.save_tensors

    def save_elsewhere(path: Path, *more: object) -> None:
        if path.parent == tmp_path / "out" or not room:
            raise NotWritten.of(path, "could not be written (No space left on device)", "make room")
        save(path, *more)

    monkeypatch.setattr("library.training.start.outputs.save_tensors", save_elsewhere)
    with pytest.raises(UserError, match="could not be written .No space left on device") as caught:
        run_here("train_network.py", *words)
    found = list((tmp_path / "temporary").rglob("x.safetensors"))
    assert len(found) == room == len(caught.value.problems) - 1
    for path in found:
        assert str(caught.value.problems[1]) == f"{path}: the result is here instead; move it soon"
        assert all(bool((tensor == whole[key]).all()) for key, tensor in load_file(path).items())


def _no_picture_at(step: int, out: Path) -> Callable:
    """Stands for save_picture on a disk without room, until this step's; then there is room again."""

    def save(path: Path, *_, **__) -> None:
        if f"_{step:06d}_" in path.name:
            (out / "room").touch()
            raise NotWritten.of("a picture", "could not be written (No space left on device)", "make room")

    return save


def test_room_is_looked_for_before_the_work(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for is at least what a run writes, and not much more."""
    out = tmp_path / "out"
    words = options(shallow_model_file, pictures, out, "--save_state", "--use_ema", "--network_dim", 64)
    run_here("train_network.py", *words)
    files = [path for path in out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    shutil.rmtree(out)
    free = size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    free = size - 1
    with pytest.raises(UserError, match=f"{out}: has .* MB free; a save with its state needs"):
        run_here("train_network.py", *words, "--cache_latents_to_disk", "--cache_latents")
    assert not list(pictures.rglob("*.npz")) and not list(out.iterdir())
    free = int(size * 1.25)
    run_here("train_network.py", *words, "--max_train_steps", 1)


def test_a_log_folder_that_is_a_file_is_found_before_the_start(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "logs").touch()
    words = options(shallow_model_file, pictures, tmp_path / "out", "--logging_dir", tmp_path / "logs")
    with pytest.raises(UserError, match="logs: cannot be made .*; choose another --logging_dir"):
        run_here("train_network.py", *words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"current_step": "two"}, "current_step cannot be 'two'"),
        ({"current_step": -1}, "current_step cannot be -1"),
        ({"seed": None}, "seed cannot be None"),
        ({"steps_per_epoch": 0}, "steps_per_epoch cannot be 0"),
        ({"settings": []}, r"settings cannot be \[\]"),
        (None, "was not written by Atelier"),
        ("{", "cannot be read"),
    ],
)
def test_a_damaged_position_is_refused_in_one_line(
    change: dict | str | None, said: str, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    state = tmp_path / "x-state"
    state.mkdir()
    for name in ("model.safetensors", "optimizer.bin"):
        (state / name).touch()
    whole = {"current_epoch": 1, "current_step": 2, "seed": 3, "steps_per_epoch": 2}
    whole |= {"optimizer": "x", "data": "x"}
    text = json.dumps(whole | change if isinstance(change, dict) else None)
    (state / "train_state.json").write_text(change if isinstance(change, str) else text)
    with pytest.raises(UserError, match=said):
        run_here(
            "train_network.py", *options(shallow_model_file, pictures, tmp_path / "out", "--resume", state)
        )


@pytest.mark.skipif(os.name == "nt", reason="it forks")
def test_runs_that_are_stopped_and_savers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    """A few of what benchmarks/soak_training.py does by the hundred."""
    from benchmarks import soak_training

    soak = soak_training.SignalSoak(soak_training.make_runs(tmp_path)[:1], random.Random(1), news=0)
    soak.run(1)
    assert soak.sent >= 1
    soak_training.kill_savers(tmp_path / "saves", 4, random.Random(2))


HOLDER = """
import sys
from pathlib import Path
from library.locks import output_lock
with output_lock(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_of_the_same_name_is_refused_before_it_loads_anything(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", HOLDER, str(out)]
    words = options(shallow_model_file, pictures, out, "--max_train_steps", 1)
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline().strip() == b"held"
        said = rf"x: another run \(process {other.pid}\) is writing files of this name; wait until"
        with monkeypatch.context() as patch, pytest.raises(UserError, match=said):
            patch.setattr("library.training.session.load_model", None)
            run_here("train_network.py", *words)
        run_here("train_network.py", *words, "--output_name", "y")
        assert not (out / ".y.lock").exists()
        other.communicate(b"")
