"""Steps within the backward pass equal those after it, with fewer gradients in memory."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from swapped import Chain, swap
from torch import Tensor, nn

from library.models.swapping.blocks import SwappedBlocks
from library.models.swapping.plan import RING
from library.options.optimizer import OptimizerOptions
from library.options.schedule import ScheduleOptions
from library.problems import UserError
from library.training.optimization import rounding
from library.training.optimization.guard import with_nan_gradients
from library.training.optimization.optimizers import OPTIMIZERS, make_optimizer
from library.training.optimization.part_steps import neighbours
from library.training.optimization.rounding import RoundedOptimizer
from library.training.optimization.schedules import make_schedule
from library.training.optimization.self_tuning import is_schedule_free
from library.training.optimization.update_in_backward import StepsInBackward, _split

STEPS = 6
FIND_THEIR_RATE = [name for name in OPTIMIZERS if name.startswith("DAdapt") or name == "Prodigy"]
OTHERS = [name for name in OPTIMIZERS if name not in FIND_THEIR_RATE]


class Net(nn.Module):
    """Six layers; the last one is unused every second step, like a text encoder that is done training."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.layers = nn.ModuleList(nn.Linear(70, 70, bias=False) for _ in range(6))
        for layer in self.layers:
            layer.weight.data = torch.randn(70, 70, generator=generator).div(8).to(dtype)

    def loss(self, step: int) -> Tensor:
        x = torch.randn(4, 70, generator=torch.Generator().manual_seed(step))
        x = x.to(self.layers[0].weight.dtype)
        for layer in self.layers if step % 2 else self.layers[:-1]:
            x = torch.nn.functional.silu(layer(x)) + x
        return x.float().square().mean()


class Training:
    """Trains the net, from the start or from another's state, and counts the gradients in memory at once."""

    def __init__(self, name: str, parts: int | None | str, dtype: torch.dtype = torch.float32) -> None:
        self.net, self.most, self.bad = Net(dtype), 0, []
        for parameter in self.net.parameters():
            parameter.register_post_accumulate_grad_hook(self._count)
        layers = [layer.weight for layer in self.net.layers]
        groups = [
            {"params": layers[:3], "lr": 0.01, "name": "unet"},
            {"params": layers[3:], "lr": 0.02, "name": "textencoder"},
        ]
        make = partial(make_optimizer, options=OptimizerOptions(optimizer_type=name))
        is_whole = dtype == torch.float32
        self.optimizer = make(groups) if is_whole else RoundedOptimizer(groups, make, seed=1)
        self.schedule = make_schedule(self.optimizer, ScheduleOptions(lr_scheduler="linear"), STEPS)
        self.updates = None if parts == "after" else StepsInBackward(self.optimizer, parts)

    def train(self, first: int = 0, last: int = STEPS) -> Training:
        if is_schedule_free(self.optimizer):
            self.optimizer.train()
        for step in range(first, last):
            self.schedule.set_rates(step)
            loss = self.net.loss(step)
            with_nan_gradients(loss).backward()
            if self.updates is None:
                self.optimizer.step()
                self.optimizer.zero_grad()
            else:
                norms = self.updates.finish()
                self.bad.append(not all(norm.isfinite() for norm in norms.by_parameter().values()))
        return self

    def go_on_from(self, other: Training) -> Training:
        self.net.load_state_dict(other.net.state_dict())
        self.optimizer.load_state_dict(other.optimizer.state_dict())
        return self

    def _count(self, _: Tensor) -> None:
        live = [p.grad.numel() for p in self.net.parameters() if p.grad is not None]
        self.most = max(self.most, sum(live))


def same(one: Training, other: Training) -> bool:
    mine, yours = one.net.state_dict(), other.net.state_dict()
    return all(torch.equal(tensor, yours[name]) for name, tensor in mine.items())


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", [*OTHERS, "RMSprop", "torch.optim.NAdam", "bitsandbytes.optim.AdEMAMix8bit"])
def test_steps_in_parts_are_the_steps_of_the_whole(name: str) -> None:
    whole = Training(name, "after").train()
    each, two = Training(name, None).train(), Training(name, 2).train()
    assert same(whole, each) and same(whole, two)
    weight = 70 * 70
    assert (whole.most, each.most) == (6 * weight, weight)
    assert Training(name, 2).train(1, 2).most == 3 * weight
    first = Training(name, None).train(0, 3)  # a state fits both ways of stepping
    assert same(whole, Training(name, "after").go_on_from(first).train(3))
    assert same(whole, Training(name, 4).go_on_from(Training(name, "after").train(0, 3)).train(3))


@pytest.mark.parametrize("name", ["AdamW", "AdaFactor", "AdamW8bit"])
def test_weights_of_16_bits_are_stepped_in_parts_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    half = torch.bfloat16
    together = Training(name, None, half).train()
    assert together.most == 6 * 70 * 70  # all of them are one small chunk
    assert same(together, Training(name, "after", half).train())
    monkeypatch.setattr(rounding, "CHUNK", 70 * 70)
    whole, each = Training(name, "after", half).train(), Training(name, None, half).train()
    assert (whole.most, each.most) == (6 * 70 * 70, 70 * 70)
    assert same(whole, each)  # rounded by the same draws
    first = Training(name, 2, half).train(0, 3)
    assert same(whole, Training(name, "after", half).go_on_from(first).train(3))


def test_the_gradients_of_a_part_are_clipped_together() -> None:
    moves = []
    for parts in (None, 2, 1):
        training = Training("SGD", parts)
        training.updates.max_grad_norm = 1e-4
        training.schedule = make_schedule(training.optimizer, ScheduleOptions(), STEPS)
        before = [p.detach().clone() for p in training.net.parameters()]
        training.train(1, 2)
        pairs = zip(training.net.parameters(), before, strict=True)
        moves.append([float((p.detach() - old).norm()) for p, old in pairs])
    each, two, one = moves
    rates = [0.01] * 3 + [0.02] * 3
    assert each == pytest.approx([rate * 1e-4 for rate in rates], rel=0.05)
    norms = [move / rate for move, rate in zip(two, rates, strict=True)]
    for half in (norms[:3], norms[3:]):
        assert sum(norm**2 for norm in half) ** 0.5 == pytest.approx(1e-4, rel=0.05)
    norms = [move / rate for move, rate in zip(one, rates, strict=True)]
    assert sum(norm**2 for norm in norms) ** 0.5 == pytest.approx(1e-4, rel=0.05)


def test_parts_are_neighbours_of_about_equal_size() -> None:
    sizes = ((5, 1, 1, 1), (8, 4, 4))
    groups = [{"params": [nn.Parameter(torch.zeros(size)) for size in group]} for group in sizes]
    found = [
        [(number, [p.numel() for p in parameters]) for number, parameters in part]
        for part in _split(neighbours(groups, 0), 3)
    ]
    assert found == [[(0, [5, 1, 1, 1])], [(1, [8])], [(1, [4, 4])]]
    assert len(_split(neighbours(groups, 0), 50)) == 7 == len(neighbours(groups, 0))


@pytest.mark.parametrize("name", FIND_THEIR_RATE)
def test_those_who_look_at_all_gradients_are_refused(name: str) -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": 1.0, "name": "unet"}]
    with pytest.raises(UserError) as error:
        make_optimizer(groups, OptimizerOptions(optimizer_type=name, fused_backward_pass=True))
    assert str(error.value) == (
        f"--optimizer_type {name}: does not work with --fused_backward_pass: it finds its rate from all "
        "gradients together; choose another one, or leave that out"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_whose_loss_is_no_number_is_left_out(dtype: torch.dtype) -> None:
    training = Training("AdamW", None, dtype).train(0, 2)
    kept = {name: tensor.clone() for name, tensor in training.net.state_dict().items()}
    good, training.net.loss = training.net.loss, lambda step: good(step) * float("nan")
    training.train(2, 3)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in training.net.state_dict().items())
    training.net.loss = good
    assert training.train(3).bad == [False, False, True, False, False, False]
    assert all(tensor.isfinite().all() for tensor in training.net.state_dict().values())


def trained_chain(
    name: str, dtype: torch.dtype, swapping: str, ring: int = RING
) -> tuple[dict[str, Tensor], StepsInBackward, SwappedBlocks | None]:
    """A chain of blocks after three steps, one of which is bad."""
    chain = Chain(5).to(dtype)
    parameters = list(chain.parameters())
    half = len(parameters) // 2
    settings = [
        {"params": parameters[:half], "lr": 0.01, "name": "a"},
        {"params": parameters[half:], "lr": 0.02, "name": "b"},
    ]
    swapped = swap(chain.blocks, ring=ring)[0] if swapping else None
    make = partial(make_optimizer, options=OptimizerOptions(optimizer_type=name))
    is_whole = dtype == torch.float32
    optimizer = make(settings) if is_whole else RoundedOptimizer(settings, make, seed=1)
    steps = StepsInBackward(optimizer, None, max_grad_norm=0.1, swapped=swapped)
    if swapping == "without steps before blocks leave":
        swapped.leaving.clear()
    for step in range(3):
        x = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(step)).to(dtype)
        loss = chain(x.requires_grad_()).float().square().mean()
        with_nan_gradients(loss * (torch.nan if step == 1 else 1)).backward()
        steps.finish()
    if swapped is None:
        return chain.state_dict(), steps, None
    with swapped.masters():
        return chain.state_dict(), steps, swapped


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["AdamW", "AdaFactor", "AdamW8bit", "Lion"])
def test_blocks_that_come_and_go_are_stepped_while_they_are_there(name: str, dtype: torch.dtype) -> None:
    """All of a chunk's weights are rounded by the same draws, although it crosses blocks."""
    whole, *_ = trained_chain(name, dtype, "")
    for ring in (1, 2):
        parts, steps, swapped = trained_chain(name, dtype, "yes", ring)
        assert all(torch.equal(parts[key], whole[key]) for key in whole)
    assert any(not torch.equal(whole[key], Chain(5).to(dtype).state_dict()[key]) for key in whole)
    homes = [{swapped.home_of(parameter) for parameter in unit.parameters} for unit in steps.units]
    assert all(len(home) == 1 for home in homes)


def test_steps_that_cross_blocks_are_an_error() -> None:
    with pytest.raises(AssertionError, match="stepped while their block is away"):
        trained_chain("AdamW", torch.float32, "without steps before blocks leave")
