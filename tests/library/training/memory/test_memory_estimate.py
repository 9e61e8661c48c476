"""The estimate of a step's memory takes no memory, and is right where it can be computed by hand."""

from __future__ import annotations

import pytest
import torch
from full_size import full_size_model
from parts_of_runs import latent_batch, lora_task, session_in
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from library.options.optimizer import OptimizerOptions
from library.training.memory.estimate import Memory, StorageCounter, estimate, state_per_weight

MB = 2**20


def test_storages_count_while_they_live_and_views_count_once() -> None:
    with FakeTensorMode(), StorageCounter([]) as counter:
        a = torch.zeros(MB, dtype=torch.uint8)
        view = a.view(2, -1)
        assert counter.live == MB
        b = a.clone()
        assert (counter.live, counter.peak) == (2 * MB, 2 * MB)
        del a, b
        assert counter.live == MB  # the view keeps its storage
        del view
        assert (counter.live, counter.peak) == (0, 2 * MB)


def test_what_was_there_before_does_not_count() -> None:
    with FakeTensorMode():
        weight = torch.zeros(MB, dtype=torch.uint8)
        with StorageCounter([weight]) as counter:
            kept = weight.view(2, -1)
            assert counter.live == 0 and kept is not None


def test_backward_frees_what_forward_kept() -> None:
    """Two layers without bias keep a, relu(a W1) and the output for the backward pass; then gradients."""
    side = 256
    with FakeTensorMode():
        layers = nn.Sequential(
            nn.Linear(side, side, bias=False), nn.ReLU(), nn.Linear(side, side, bias=False)
        )
        x = torch.ones(4 * side, side)
        with StorageCounter([x, *layers.parameters()]) as counter:
            loss = layers(x).sum()
            held = counter.live
            loss.backward()
            del loss
        weight, activation = side * side * 4, 4 * side * side * 4
        assert held == pytest.approx(activation, abs=1024)  # the relu's output serves both
        assert counter.live == 2 * weight  # the gradients


@pytest.mark.parametrize(
    ("name", "each"),
    [("AdamW", 8.0), ("SGDNesterov", 4.0), ("Lion", 4.0), ("torch.optim.SGD", 0.0), ("AdamW8bit", 2.06)],
)
def test_an_optimizers_state_is_seen_on_a_small_matrix(name: str, each: float) -> None:
    found = state_per_weight(OptimizerOptions(optimizer_type=name), torch.device("cpu"))
    assert found == pytest.approx(each, abs=0.01)


def test_the_peak_has_pictures_encoded_before_there_are_activations() -> None:
    memory = Memory(weights=100, gradients=10, optimizer=20, activations=30, encoding=0)
    assert memory.peak == 160
    assert Memory(100, 10, 20, 30, encoding=25).peak == 160
    assert Memory(100, 10, 20, 30, encoding=50).peak == 170


def test_a_full_size_model_takes_what_was_counted() -> None:
    """SD 1.5 at 512 pixels with a LoRA: 0.87 GiB of activations in bfloat16, counted from its published
    configuration. No tensor here takes memory.
    """
    session, task = session_in("bf16"), lora_task(full_size_model("sd1"))
    batch = latent_batch(task.model, side=64)
    memory = estimate(task, session, batch, OptimizerOptions(), frozen=torch.bfloat16)
    assert memory.activations / 2**30 == pytest.approx(0.87, abs=0.05)
