"""Pictures, losses and gradients that are no numbers, end to end: named, left out, and never in a file."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from commands import ROOT, launch, make_pictures, run_here
from safetensors.torch import load_file

from library.data.batch import Batch
from library.data.caches.latent_cache import LatentCache
from library.problems import UserError
from library.training.tasks.task import Task


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "1_sks", 6)
    return folder


def words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", out),
        *("--resolution", 64, "--caption_extension", ".txt", "--train_batch_size", 1, "--seed", 3),
        *("--network_module", "networks.lora", "--learning_rate", 1e-3, "--output_name", "x"),
        *("--max_data_loader_n_workers", 0, "--gradient_accumulation_steps", 2, *more),
    ]


def spoil_losses(patch: pytest.MonkeyPatch, name: str, value: float = math.nan) -> None:
    """One picture's loss."""
    losses = Task.losses

    def spoiled(task: Task, batch: Batch, t: torch.Tensor) -> torch.Tensor:
        return losses(task, batch, t) * torch.tensor([value if n == name else 1.0 for n in batch.names])

    patch.setattr(Task, "losses", spoiled)


def spoil_gradients(patch: pytest.MonkeyPatch, name: str) -> None:
    """What one picture's loss gives, being a number itself."""
    losses = Task.losses

    def spoiled(task: Task, batch: Batch, t: torch.Tensor) -> torch.Tensor:
        found = losses(task, batch, t)
        if name in batch.names:
            found.register_hook(lambda gradient: gradient * math.nan)
        return found

    patch.setattr(Task, "losses", spoiled)


def spoil_cached_latents(patch: pytest.MonkeyPatch, name: str) -> None:
    read = LatentCache.__getitem__

    def spoiled(cache: LatentCache, key: tuple[int, bool]) -> torch.Tensor:
        return read(cache, key) * (math.nan if key[0] == 2 else 1)

    patch.setattr(LatentCache, "__getitem__", spoiled)


def spoil_encoded_latents(patch: pytest.MonkeyPatch, name: str) -> None:
    """What a VAE that overflows gives for one picture."""
    latents = Task.latents

    def spoiled(task: Task, batch: Batch) -> torch.Tensor:
        found = latents(task, batch)
        return found * math.inf if name in batch.names else found

    patch.setattr(Task, "latents", spoiled)


WAYS = {
    "loss": (spoil_losses, ()),
    "gradients": (spoil_gradients, ()),
    "cached latents": (spoil_cached_latents, ("--cache_latents",)),
    "encoded latents": (spoil_encoded_latents, ()),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_picture_is_named_and_its_step_left_out(
    way: str,
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    spoil, more = WAYS[way]
    spoil(monkeypatch, "0_02.png")
    common = words(shallow_model_file, pictures, tmp_path, *more, "--save_every_n_steps", 1)
    run_here("train_network.py", *common, "--max_train_steps", 6)  # three an epoch, one with the bad picture
    told = capsys.readouterr().err
    bad = {int(step) for step in re.findall(r"step (\d+): .* was left out \(.*0_02.png at timestep", told)}
    assert len(bad) == told.count("was left out") == 2
    found = [load_file(tmp_path / f"x-step{step:08d}.safetensors") for step in range(1, 7)]
    assert all(value.isfinite().all() for tensors in found for value in tensors.values())
    still = {step for step in range(2, 7) if same(found[step - 2], found[step - 1])}
    assert still == bad - {1}


def test_a_resumed_run_leaves_out_what_the_whole_one_does(
    shallow_model_file: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_losses(monkeypatch, "0_02.png")

    def train(out: str, steps: int, *more: object) -> dict[str, torch.Tensor]:
        common = words(shallow_model_file, pictures, tmp_path / out, "--max_train_steps", steps, *more)
        run_here("train_network.py", *common)
        return load_file(tmp_path / out / "x.safetensors")

    whole = train("whole", 6)
    train("cut", 3, "--save_state")
    assert same(train("cut", 6, "--resume", tmp_path / "cut" / "x-state"), whole)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_run_without_a_good_step_ends_and_keeps_what_it_had(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    """The count goes on over a resume, and files stay those of the last good step."""
    common = words(shallow_model_file, pictures, tmp_path, "--save_every_n_steps", 2, "--save_state")
    run_here("train_network.py", *common, "--max_train_steps", 2)
    good = load_file(tmp_path / "x.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        losses = Task.losses
        patch.setattr(Task, "losses", lambda task, batch, t: losses(task, batch, t) * math.inf)
        with pytest.raises(UserError, match="step 7: the last steps were all left out") as raised:
            more = ("--resume", tmp_path / "x-state", "--max_train_steps", 30, "--max_bad_steps", 5)
            run_here("train_network.py", *common, *more)
        said = str(raised.value.problems[-1])
        assert "go on with --resume" in said
        (state,) = [path for path in tmp_path.glob("x-step*-state") if said.endswith(path.name)]
        with pytest.raises(UserError, match="the last steps were all left out"):
            more = ("--resume", state, "--max_train_steps", 30, "--max_bad_steps", 7)
            run_here("train_network.py", *common, *more)
    assert same(good, load_file(state / "model.safetensors"))


def test_all_processes_leave_out_the_same_steps(
    shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    """The bad picture is in one process's share only."""
    script = tmp_path / "train.py"
    script.write_text(
        f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import pytest, train_network, test_broken_steps
test_broken_steps.spoil_losses(pytest.MonkeyPatch(), "0_02.png")
train_network.main()
"""
    )
    common = words(shallow_model_file, pictures, tmp_path / "out", "--max_train_steps", 4)
    done = launch(script, *common, processes=2)
    assert done.stderr.count("was left out (0_02.png at timestep") == 2
    found = load_file(tmp_path / "out" / "x.safetensors")
    assert all(value.isfinite().all() for value in found.values())
