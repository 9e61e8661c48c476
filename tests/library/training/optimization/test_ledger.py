"""The ledger of a run: what was trained and how far it moved."""

from __future__ import annotations

import math

import pytest
import torch
from held import whole
from torch import nn

from library.models.base import Model
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.problems import UserError
from library.training.optimization import ledger as ledger_module
from library.training.optimization.ledger import Ledger
from library.training.tasks.components import Component
from library.training.tasks.model import ModelTask, TextTraining
from library.training.tasks.network import NetworkTask


def component(name: str, *values: float, is_text: bool = False) -> Component:
    return Component(name, [nn.Parameter(torch.tensor(values).float())], is_text)


def test_a_part_moved_by_the_norm_of_its_change_over_its_norm_at_the_start() -> None:
    one, other = component("U-Net", 3.0, 4.0), component("text encoder", 0.0)
    ledger = Ledger([one, other], since=2, weights=whole())
    groups = [{"lr": 0.1, "params": [*one.parameters, *other.parameters]}]
    ledger.record_step(groups, torch.tensor(1.0), trains_text=True)
    with torch.no_grad():
        one.parameters[0] += torch.tensor([0.0, 0.5])
        other.parameters[0] += 1
    balance = ledger.balance(7)
    assert (balance.since, balance.until) == (2, 7)
    assert [(e.part, e.parameters, e.moved, e.gradient) for e in balance.entries] == [
        ("U-Net", 2, 0.1, None),
        ("text encoder", 1, math.inf, None),
    ]
    balance.raise_if_unmoved()


def test_gradients_are_looked_at_every_tenth_step_as_they_were_before_clipping() -> None:
    one = component("U-Net", 1.0, 1.0)
    ledger = Ledger([one], since=0, weights=whole())
    for step, norm in ((0, 5.0), (1, 100.0), (10, 15.0), (20, math.inf)):
        one.parameters[0].grad = torch.tensor([0.0, norm * 0.5])
        ledger.measure_gradients(step, torch.tensor(0.5))
    assert ledger.balance(21).entries[0].gradient == 10


def test_a_part_that_was_asked_for_and_stands_still_is_an_error() -> None:
    parts = [component(name, 1.0) for name in ("a", "b", "c")]
    text = component("text encoder", 1.0, is_text=True)
    ledger = Ledger([*parts, text], since=0, weights=whole())
    rates = [{"lr": lr, "params": one.parameters} for lr, one in zip((0.1, 0.1, 0.0), parts, strict=True)]
    rates.append({"lr": 0.1, "params": text.parameters})
    ledger.record_step(rates, torch.tensor(math.inf), trains_text=True)  # skipped
    # b has a rate; c has none on purpose; text training stopped.
    for _ in range(10):
        ledger.record_step(rates, torch.tensor(1.0), trains_text=False)
    assert [entry.steps for entry in ledger.balance(11).entries] == [10, 10, 0, 0]
    with torch.no_grad():
        parts[0].parameters[0] += 1
    with pytest.raises(UserError) as raised:
        ledger.balance(11).raise_if_unmoved()
    assert str(raised.value) == (
        "b: was to be trained and did not move in steps 0 to 11; raise its learning rate, or leave it out of "
        "training; everything was saved"
    )


def test_in_fewer_than_ten_steps_it_is_a_warning(capsys: pytest.CaptureFixture) -> None:
    one = component("a", 1.0)
    ledger = Ledger([one], since=0, weights=whole())
    for _ in range(9):
        ledger.record_step([{"lr": 0.1, "params": one.parameters}], torch.tensor(1.0), trains_text=True)
    ledger.balance(9).raise_if_unmoved()
    assert capsys.readouterr().err == (
        "warning: a was to be trained and did not move in steps 0 to 9; in 9 steps that may be the "
        "optimizer's way to begin\n"
    )


def test_the_table_is_small() -> None:
    one, other = component("U-Net", *range(1, 2001)), component("text encoder", 0.0)
    ledger = Ledger([one, other], since=0, weights=whole())
    one.parameters[0].grad = torch.ones(2000)
    ledger.measure_gradients(0)
    with torch.no_grad():
        one.parameters[0] *= 1.0125
        other.parameters[0] += 1
    assert str(ledger.balance(5)).splitlines() == [
        "what steps 0 to 5 trained:",
        "              parameters   moved  gradient",
        "U-Net              2,000  1.25 %      44.7",
        "text encoder           1  from 0         -",
    ]


def test_a_large_part_is_measured_on_a_sample_of_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "SAMPLE", 2000)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(size, generator=generator) for size in ((300, 400), (50,), (4, 10000))]
    parameters = [nn.Parameter(tensor.clone()) for tensor in tensors]
    ledger = Ledger([Component("U-Net", parameters)], since=0, weights=whole())
    assert 2000 < len(ledger.tensors()["U-Net.start"]) < 2100
    with torch.no_grad():
        parameters[0] *= 1.01
        parameters[2] += 0.1
    changes = torch.cat([(p.detach() - t).flatten() for p, t in zip(parameters, tensors, strict=True)])
    exact = changes.norm() / torch.cat([t.flatten() for t in tensors]).norm()
    assert ledger.balance(1).entries[0].moved == pytest.approx(exact.item(), rel=0.1)


def test_the_books_go_on_with_a_state() -> None:
    one = component("U-Net", 3.0, 4.0)
    first = Ledger([one], since=0, weights=whole())
    one.parameters[0].grad = torch.tensor([0.0, 2.0])
    first.measure_gradients(0)
    first.record_step([{"lr": 1.0, "params": one.parameters}], torch.tensor(1.0), trains_text=True)
    with torch.no_grad():
        one.parameters[0] += torch.tensor([0.0, 0.5])
    second = Ledger([one], since=5, weights=whole())
    second.load_tensors(first.tensors())
    assert second.balance(5) == first.balance(5)
    assert second.balance(5).entries[0].moved == pytest.approx(0.1)
    other = Ledger([component("network", 1.0)], since=5, weights=whole())
    other.load_tensors(first.tensors())
    assert other.balance(6).since == 5


def test_the_parts_of_a_model_and_of_a_network_are_named(any_model: Model, kind: str) -> None:
    encoders = ["text encoder 1", "text encoder 2"] if kind == "sdxl" else ["text encoder"]
    text = TextTraining((1e-3,))
    task = ModelTask(any_model, ObjectiveOptions(), learning_rate=1e-3, text=text)
    assert [one.name for one in task.components()] == ["U-Net", *encoders]
    frozen = ModelTask(any_model, ObjectiveOptions(), learning_rate=1e-3)
    assert [one.name for one in frozen.components()] == ["U-Net"]
    network = NetworkOptions(network_module="networks.lora", network_dim=2)
    lora = NetworkTask(any_model, ObjectiveOptions(), network, learning_rate=1e-3, clip_skip=None, seed=0)
    names = [one.name for one in lora.components()]
    assert names == ["network of the U-Net", *(f"network of the {name}" for name in encoders)]
    trained = sum(p.numel() for group in lora.param_groups() for p in group["params"])
    assert sum(p.numel() for one in lora.components() for p in one.parameters) == trained
