"""A source of batches of one's own, here a list of prompts without pictures, has all that the loop offers."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from commands import call
from torch import Tensor
from trainers import weights

from library.data.batch import Batch, Needs
from library.data.loader import Builder
from library.data.plan import Position
from library.latent_space import LatentSpace
from library.models.base import Model
from library.models.text import Tokenizer
from library.options.data import DataOptions
from library.options.network import NetworkOptions
from library.options.parser import Reading
from library.randomness import keyed_generator, keyed_random
from library.training.batches import BatchSource
from library.training.loop import train
from library.training.output import Output
from library.training.run import TrainingRun
from library.training.session import Session, open_model
from library.training.start.command import begin_with
from library.training.tasks.network import NetworkTask

BATCH, SIDE = 2, 8  # samples, and latents per side


@dataclass
class PromptBuilder(Builder):
    """position -> a batch of prompts, with noise in the place of pictures."""

    prompts: list[str]
    tokenizer: Tokenizer
    channels: int
    seed: int
    is_fixed: bool

    def build(self, position: Position) -> Batch:
        epoch = 0 if self.is_fixed else position.epoch
        order = list(range(len(self.prompts)))
        keyed_random(self.seed, "prompts", epoch).shuffle(order)
        samples = order[position.batch * BATCH : (position.batch + 1) * BATCH]
        captions, count = [self.prompts[n] for n in samples], len(samples)
        shape = (self.channels, SIDE, SIDE)
        noises = [
            torch.randn(shape, generator=keyed_generator(self.seed, "noise", epoch, n)) for n in samples
        ]
        return Batch(
            pixels=None,
            latents=torch.zeros(count, *shape),
            masks=None,
            tokens=self.tokenizer(captions),
            text=None,
            captions=captions,
            sizes=torch.tensor([[64, 64, 0, 0, 64, 64]] * count),
            weights=torch.ones(count),
            divisor=count,
            noise=torch.stack(noises),
            u=torch.tensor([keyed_random(self.seed, "u", epoch, n).random() for n in samples]),
            posterior=None,
            network_multiplier=1.0,
            attributes=[{}] * count,
            position=position,
            names=captions,
        )


class Prompts(BatchSource):
    """Batches of prompts, some of which are held out."""

    def __init__(self, prompts: list[str], held_out: list[str]) -> None:
        self.prompts = prompts
        self._validation = Prompts(held_out, []) if held_out else None

    @property
    def validation(self) -> BatchSource | None:
        return self._validation

    @property
    def resolution(self) -> tuple[int, int]:
        return 64, 64

    def batches_per_epoch(self, processes: int) -> int:
        return math.ceil(len(self.prompts) / BATCH)

    def fingerprint(self, seed: int, processes: int) -> str:
        return hashlib.blake2b("\n".join(self.prompts).encode()).hexdigest()

    def builder(
        self,
        model: Model,
        run: TrainingRun,
        session: Session,
        *,
        total_steps: int,
        needs: Needs,
        fixed_seed: int | None = None,
    ) -> PromptBuilder:
        is_fixed = fixed_seed is not None
        seed = session.seed if fixed_seed is None else fixed_seed
        channels = model.latent_space.channels
        return PromptBuilder(self.prompts, model.tokenizer(), channels, seed, is_fixed)

    def summary(self) -> list[str]:
        return [f"{len(self.prompts)} prompts"]

    def contents(self) -> list[str]:
        return self.prompts

    def report_figures(self) -> list[tuple[str, str]]:
        return [("prompts", str(len(self.prompts)))]


class ShiftTask(NetworkTask):
    """Teaches a network to give, for a prompt, a little more than the model gave without it."""

    def target(self, batch: Batch, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return 1.1 * self._without_network(batch, x, t)


@dataclass(frozen=True)
class PromptOptions(DataOptions):
    """Of a trainer without pictures."""

    needs_pictures = False


@dataclass(frozen=True)
class Run(TrainingRun):
    data: PromptOptions
    network: NetworkOptions
    trains_text = False


def make_prompts(reading: Reading[Run], latent_space: LatentSpace) -> Prompts:
    return Prompts(["a cat", "a dog", "a tree", "a house", "a ship"], ["a car", "a man"])


def main() -> None:
    run, prompts = begin_with(make_prompts, Run, "Train beside prompts.")
    session = Session.start(run.training, run.processes, run.saving.resume)
    task = ShiftTask(
        open_model(run.model, session),
        run.objective,
        run.network,
        learning_rate=run.optimizer.learning_rate,
        clip_skip=None,
        seed=session.seed,
    )
    output = Output("safetensors", "prompts", lambda moment: {})
    train(run, session, task, prompts, output)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_prompts_alone_train_with_validation_report_and_exact_resume(
    workers: int, tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def run(folder: str, *more: object) -> Path:
        words = (
            *("--pretrained_model_name_or_path", tiny_model_file, "--output_dir", tmp_path / folder),
            *("--network_module", "networks.lora", "--network_dim", 2, "--network_train_unet_only"),
            *("--learning_rate", 1e-3, "--seed", 3, "--output_name", "x", "--resolution", 64),
            *("--max_data_loader_n_workers", workers, "--validate_every_n_steps", 2),
        )
        call(main, "train_prompts.py", *words, *more)
        return tmp_path / folder

    whole = run("whole", "--max_train_steps", 5)
    out = capsys.readouterr().out
    assert "5 prompts" in out and "3 batches and 3 steps an epoch" in out and "(2 images)" in out

    run("half", "--max_train_steps", 2, "--save_state_on_train_end")
    half = run("half", "--max_train_steps", 5, "--resume", tmp_path / "half" / "x-state")
    assert weights(half / "x.safetensors") == weights(whole / "x.safetensors")
    assert "prompts" in (whole / "x-report.html").read_text(encoding="utf-8")


def test_other_prompts_are_noticed_on_resume(
    tiny_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = (
        *("--pretrained_model_name_or_path", tiny_model_file, "--output_dir", tmp_path),
        *("--network_module", "networks.lora", "--network_dim", 2, "--network_train_unet_only"),
        *("--learning_rate", 1e-3, "--seed", 3, "--output_name", "x", "--resolution", 64),
        *("--max_data_loader_n_workers", 0),
    )
    call(main, "train_prompts.py", *words, "--max_train_steps", 2, "--save_state_on_train_end")
    monkeypatch.setattr(Prompts, "fingerprint", lambda *_: "other")
    call(main, "train_prompts.py", *words, "--max_train_steps", 4, "--resume", tmp_path / "x-state")
    assert "the data, batch size or accumulation changed" in capsys.readouterr().err
