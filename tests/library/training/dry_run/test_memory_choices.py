"""What a run's options save of a step's memory, and which would save more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kinds import make_kind
from parts_of_runs import latent_batch, lora_task
from torch import nn

import train_network
from library.options.parser import parse
from library.training.dry_run import memory_choices
from library.training.dry_run.memory_choices import MemoryForecast, forecast_memory
from library.training.memory import forecast as memory_forecast
from library.training.memory.estimate import Memory
from library.training.tasks.network import NetworkTask

TEXT = "--cache_text_encoder_outputs (for captions that never change)"


@pytest.fixture(scope="module")
def task() -> NetworkTask:
    return lora_task(make_kind("sdxl"))


@pytest.fixture
def forecast(task: NetworkTask, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The forecast of a run with these options on a GPU, of a step that takes what `made` says."""
    weights = 2 * sum(parameter.nbytes for parameter in task.parameters())
    made = Memory(weights, gradients=weights, optimizer=0, activations=0, encoding=weights)
    monkeypatch.setattr(memory_forecast, "estimate", lambda *given, **named: made)
    monkeypatch.setattr(memory_choices, "MIN_SAVING", 0)  # of tiny parts
    session = SimpleNamespace(
        device=torch.device("cuda"), accelerator=SimpleNamespace(num_processes=1, autocast=None)
    )

    def of(*words: object) -> tuple[Memory, MemoryForecast]:
        common = ("--pretrained_model_name_or_path", "x", "--train_data_dir", "x", "--output_dir", "x")
        common += ("--network_module", "networks.lora", "--network_train_unet_only", "--max_train_steps", "1")
        run = parse(train_network.Run, argv=[*common, *map(str, words)])
        return made, forecast_memory(task, run, session, latent_batch(task.model, 8))  # type: ignore[arg-type]

    return of


def size_of(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def test_what_is_cached_leaves_the_device(task: NetworkTask, forecast: Any) -> None:
    made, found = forecast()
    choices = dict(found.choices)
    assert found.memory == made
    assert choices["--cache_latents"] == made.peak - size_of(task.model.vae)
    assert choices[TEXT] == made.peak - size_of(task.model.text_encoders)

    _, cached = forecast("--cache_latents", "--cache_text_encoder_outputs")
    parts = size_of(task.model.vae) + size_of(task.model.text_encoders)
    assert cached.memory.weights == made.weights - parts
    assert cached.memory.encoding == 0
    assert TEXT not in dict(cached.choices) and "--cache_latents" not in dict(cached.choices)


def test_previews_keep_every_part_on_the_device(forecast: Any) -> None:
    made, found = forecast("--cache_latents", "--cache_text_encoder_outputs", "--sample_prompts", "x.txt")
    assert found.memory.weights == made.weights


def test_steps_in_the_backward_pass_hold_twice_the_largest_gradient(task: NetworkTask, forecast: Any) -> None:
    sizes = [parameter.numel() for parameter in task.trained_parameters()]
    made, found = forecast("--cache_latents", "--fused_backward_pass")
    assert found.memory.gradients == made.gradients // (sum(sizes) // (2 * max(sizes)))
    made, found = forecast("--cache_latents", "--fused_optimizer_groups", 4)
    assert found.memory.gradients == made.gradients // 4
