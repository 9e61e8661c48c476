"""A task of one's own, here a single bias of the U-Net, has all that the loop offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from commands import call
from torch import Tensor
from trainers import options, two_buckets, weights

from library.models.base import Model
from library.models.saving import Saving
from library.models.weights import load_tensors, save_tensors
from library.options.objective import ObjectiveOptions
from library.param_groups import ParamGroup
from library.training.loop import train
from library.training.output import Output
from library.training.run import TrainingRun
from library.training.session import Session, open_model
from library.training.start.command import begin
from library.training.tasks.components import Component
from library.training.tasks.task import Task


class BiasTask(Task):
    """Trains the bias of the U-Net's last convolution; the result is that tensor."""

    def __init__(self, model: Model, options: ObjectiveOptions, *, learning_rate: float) -> None:
        super().__init__(model, options)
        self.learning_rate = learning_rate
        self.bias = model.denoiser.conv_out.bias
        self.bias.requires_grad_(True)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(params=[self.bias], lr=self.learning_rate, name="bias")]

    def components(self) -> list[Component]:
        return [Component("bias", [self.bias])]

    def trained_tensors(self) -> dict[str, Tensor]:
        return {"conv_out.bias": self.bias.detach()}

    @torch.no_grad()
    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.bias.copy_(tensors["conv_out.bias"])

    def save(self, path: Path, saving: Saving) -> None:
        save_tensors(path, self.trained_tensors(), dict(saving.metadata or {}))


@dataclass(frozen=True)
class Run(TrainingRun):
    trains_text = False


def main() -> None:
    run, pictures = begin(Run, "Train a bias.")
    session = Session.start(run.training, run.processes, run.saving.resume)
    task = BiasTask(open_model(run.model, session), run.objective, learning_rate=run.optimizer.learning_rate)
    output = Output("safetensors", "bias", lambda moment: {"epoch": str(moment.epoch)})
    train(run, session, task, pictures, output)


def run_here(*words: object) -> None:
    call(main, "train_bias.py", *words)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_buckets(tmp_path_factory.mktemp("pictures"))


def test_a_task_of_ones_own_trains_and_resumes_exactly(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat --w 64 --h 64 --s 2 --d 1\n")
    more = (
        *("--use_ema", "--cache_latents", "--lr_scheduler", "cosine", "--gradient_accumulation_steps", 2),
        *("--sample_prompts", prompts, "--sample_every_n_steps", 2),
        *("--validation_split", 0.3, "--validate_every_n_steps", 2, "--save_best"),
    )
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    saves = ("--max_train_steps", 4, "--save_every_n_steps", 2, "--save_state")
    run_here(*options(tiny_model_file, pictures, whole, *more, *saves))
    out = capsys.readouterr().out
    assert "training 4 parameters" in out and "what steps 0 to 4 trained" in out

    state = whole / "x-step00000002-state"
    run_here(*options(tiny_model_file, pictures, resumed, *more, *saves), "--resume", state)
    assert weights(resumed / "x.safetensors") == weights(whole / "x.safetensors")
    assert load_tensors(whole / "x.safetensors").keys() == {"conv_out.bias"}
    assert len(list((whole / "sample").glob("*.png"))) == 2
    assert {path.name for path in whole.iterdir()} >= {"x-best.safetensors", "x-report.html"}


def test_a_task_of_ones_own_can_be_tried_before_it_runs(
    tiny_model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = options(tiny_model_file, pictures, tmp_path / "out", "--max_train_steps", 4, "--dry_run")
    with pytest.raises(SystemExit):
        run_here(*words)
    assert "dry run: no problems found; nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
