"""A run that something ends on its way leaves a state, and going on from it is the same as never having
stopped.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from commands import run_here
from trainers import of_trainer, options, two_buckets, weights

from library.data.batch import Batch
from library.data.builder import BatchBuilder
from library.data.plan import Position
from library.problems import UserError
from library.training.dry_run.proposals import Choices
from library.training.optimization.guard import Guard
from library.training.optimization.update_in_backward import StepsInBackward
from library.training.stepper import Stepper

SCRIPT = "train_network.py"
# Four batches an epoch: steps of 3 and 1.
WINDOWS = ("--gradient_accumulation_steps", 3, "--max_train_steps", 5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_buckets(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(shallow_model_file: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the run learns that nothing ends."""
    return train(shallow_model_file, pictures, tmp_path_factory.mktemp("whole"))


def train(model: Path, pictures: Path, out: Path, *more: object) -> bytes:
    run_here(SCRIPT, *options(model, pictures, out, *of_trainer(SCRIPT), *WINDOWS, *more))
    return weights(out / "x.safetensors")


def only_state(out: Path) -> Path:
    (state,) = out.glob("*-state")
    return state


@pytest.mark.parametrize(("step", "batch"), [(2, 0), (2, 2), (3, 3)])
def test_a_picture_that_cannot_be_read_loses_no_step(
    step: int, batch: int, shallow_model_file: Path, pictures: Path, whole: bytes, tmp_path: Path
) -> None:
    """In the first and the last batch of a step of three, and in the step of one."""
    build = BatchBuilder.build

    def bad(builder: BatchBuilder, position: Position) -> Batch:
        if (position.step, position.batch) == (step, batch):
            raise UserError.of("a.png", "cannot be read")
        return build(builder, position)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="a.png: cannot be read"):
        patch.setattr(BatchBuilder, "build", bad)
        train(shallow_model_file, pictures, tmp_path)
    assert only_state(tmp_path).name == f"x-step{step:08d}-state"
    assert train(shallow_model_file, pictures, tmp_path, "--resume", only_state(tmp_path)) == whole


def test_a_device_without_memory_loses_no_step_and_is_told_what_would_fit(
    shallow_model_file: Path, pictures: Path, whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    forward_backward = Stepper.forward_backward

    def too_much(stepper: Stepper, batch: Batch) -> None:
        forward_backward(stepper, batch)
        if (batch.position.step, batch.position.batch) == (2, 1):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. 7.00 GiB allowed; Of")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as raised:
        patch.setattr(Stepper, "forward_backward", too_much)
        # Two of all that are open: each way of computing is estimated for a second.
        patch.setattr(Choices, "open", lambda choices: ["--cache_latents", "--gradient_checkpointing"])
        train(shallow_model_file, pictures, tmp_path)
    (problem,) = raised.value.problems
    assert problem.where == "memory of the cpu" and "(--allow_shared_memory lets it go on" in problem.cause
    one = r"--[\w ]+ \([-+][\d.]+ MB, [\d.]+x time\)"
    assert re.fullmatch(rf"as estimated, it fits with {one}(, {one})*", problem.fix)
    state = only_state(tmp_path)
    assert f"step 2: the state was saved; go on with --resume {state}" in capsys.readouterr().err
    assert train(shallow_model_file, pictures, tmp_path, "--resume", state) == whole


@pytest.mark.parametrize(
    ("broken", "more"),
    [
        ((Guard, "step"), ()),
        ((StepsInBackward, "finish"), ("--fused_backward_pass", "--gradient_accumulation_steps", 1)),
    ],
)
def test_weights_that_were_changing_are_not_saved(
    broken: tuple[type, str], more: tuple, shallow_model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    kind, name = broken
    real, calls = getattr(kind, name), []

    def breaks(*arguments: object) -> object:
        calls.append(name)
        if len(calls) == 3:
            raise RuntimeError("the driver is gone")
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="the driver is gone"):
        patch.setattr(kind, name, breaks)
        train(shallow_model_file, pictures, tmp_path, *more)
    assert not list(tmp_path.glob("*-state"))


def test_a_state_that_cannot_be_saved_does_not_hide_what_went_wrong(
    shallow_model_file: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("the device gave up")

    monkeypatch.setattr("library.training.milestones.Milestones.after", gone)
    monkeypatch.setattr("library.training.start.outputs.write_state", gone)
    with pytest.raises(RuntimeError, match="the device gave up"):
        train(shallow_model_file, pictures, tmp_path)
    assert "the state could not be saved (RuntimeError: the device gave up)" in capsys.readouterr().err
