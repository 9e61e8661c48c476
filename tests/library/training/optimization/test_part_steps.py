"""A step with bad gradients leaves no trace, whatever the optimizer, and nothing waits for the device."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from library.options.optimizer import OptimizerOptions
from library.training.optimization.gradients import gradient_norm, is_not_finite
from library.training.optimization.guard import GuardedSteps, with_nan_gradients
from library.training.optimization.optimizers import OPTIMIZERS, make_optimizer
from library.training.optimization.part_steps import PartSteps, neighbours
from library.training.optimization.self_tuning import begin_training
from library.training.optimization.update_in_backward import StepsInBackward

FIND_THEIR_RATE = [name for name in OPTIMIZERS if name.startswith("DAdapt") or name == "Prodigy"]
OTHERS = [name for name in OPTIMIZERS if name not in FIND_THEIR_RATE]
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


def parameters() -> list[nn.Parameter]:
    """Of several shapes; one in channels_last, one large enough for 8-bit states."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(64, 80), (7,), (6, 5, 3, 3), (64, 80), ()]
    found = [nn.Parameter(torch.rand(shape, generator=generator)) for shape in shapes]
    found[2].data = found[2].data.to(memory_format=torch.channels_last)
    return found


class Training:
    """Steps on gradients that depend on a number; `nan` and `inf` are bad ones."""

    def __init__(self, name: str, *args: str, in_backward: bool = False) -> None:
        self.parameters = parameters()
        groups = [
            {"params": self.parameters[:2], "lr": 0.01, "name": "unet"},
            {"params": self.parameters[2:], "lr": 0.02, "name": "textencoder"},
        ]
        for group in groups:
            group["lr"] = 1.0 if name in FIND_THEIR_RATE else group["lr"]
        options = OptimizerOptions(optimizer_type=name, optimizer_args=args)
        self.optimizer = make_optimizer(groups, options)
        begin_training(self.optimizer)
        self.after = None if in_backward else GuardedSteps(self.optimizer)
        self.within = StepsInBackward(self.optimizer, None) if in_backward else None

    def train(self, *numbers: float) -> Training:
        for number in numbers:
            loss = sum((p * p * number).sum() for p in self.parameters)
            with_nan_gradients(loss).backward()
            if self.within is not None:
                self.within.finish()
            elif self.after is not None:
                self.after.step(is_not_finite(gradient_norm(self.parameters)))
                self.optimizer.zero_grad()
        return self

    def learned(self) -> tuple[list[Tensor], dict, list[dict]]:
        """Weights, and the optimizer's state and groups."""
        state = copy.deepcopy(self.optimizer.state_dict())
        groups = [{k: v for k, v in group.items() if k != "name"} for group in state["param_groups"]]
        return [p.detach().clone() for p in self.parameters], state["state"], groups


def assert_same(one: Training, other: Training) -> None:
    torch.testing.assert_close(one.learned(), other.learned(), rtol=0, atol=0)


@pytest.mark.parametrize("in_backward", [False, True], ids=["after", "within"])
@pytest.mark.parametrize("name", [*OTHERS, "RMSprop", "torch.optim.NAdam", "bitsandbytes.optim.AdEMAMix8bit"])
def test_bad_steps_are_as_if_they_had_not_been(name: str, in_backward: bool) -> None:
    def trained(*numbers: float) -> Training:
        return Training(name, in_backward=in_backward).train(*numbers)

    assert_same(trained(1, math.nan, 2, math.inf, math.nan, 3), trained(1, 2, 3))
    assert_same(trained(math.nan, 1, 2), trained(1, 2))  # before there is any state
    before = trained(1, 2)
    assert_same(before, trained(1, 2, math.nan))
    weights, *_ = trained(math.nan).learned()
    torch.testing.assert_close(weights, [p.detach() for p in parameters()], rtol=0, atol=0)


@pytest.mark.parametrize("name", FIND_THEIR_RATE)
def test_those_who_find_their_rate_leave_no_trace_either(name: str) -> None:
    assert_same(Training(name).train(1, math.nan, 2, math.inf), Training(name).train(1, 2))


@pytest.mark.parametrize("name", ["AdamW", "AdaFactor", "Lion", "AdamW8bit", "AdamWScheduleFree"])
def test_only_the_part_with_a_bad_gradient_is_skipped(name: str) -> None:
    training, alone = Training(name), Training(name)
    for one in (training, alone):
        one.train(1)
        for parameter in one.parameters:
            parameter.grad = torch.ones_like(parameter)
    kept = [parameter.detach().clone() for parameter in training.parameters]
    steps = PartSteps(training.optimizer)
    for part in neighbours(training.optimizer.param_groups, 64 * 80):
        steps.step_part(part, torch.tensor(part[0][1][0].numel() == 7))
    steps.finish()
    alone.after.step(torch.tensor(False))
    for number, parameter in enumerate(training.parameters):
        expected = kept[number] if number in (1, 2) else alone.parameters[number].detach()
        assert torch.equal(parameter.detach(), expected)


def test_what_follows_a_bad_step_in_a_state_is_loaded_as_it_is() -> None:
    """A state that is loaded right after a bad step is not changed by what was to be undone."""
    training = Training("AdamW8bit").train(1, 2)
    state = copy.deepcopy(training.optimizer.state_dict())
    training.train(math.nan)
    training.optimizer.load_state_dict(copy.deepcopy(state))
    training.train(3)
    assert training.optimizer.state[training.parameters[0]]["step"] == 3


def test_neighbours_are_of_one_device_and_type() -> None:
    sizes = [
        (3, torch.float32),
        (3, torch.float32),
        (1, torch.float32),
        (1, torch.bfloat16),
        (9, torch.bfloat16),
    ]
    weights = [nn.Parameter(torch.zeros(size, dtype=dtype)) for size, dtype in sizes]
    parts = neighbours([{"params": weights[:2]}, {"params": weights[2:]}], 4)
    found = [[(number, [len(p) for p in own]) for number, own in part] for part in parts]
    assert found == [[(0, [3])], [(0, [3]), (1, [1])], [(1, [1])], [(1, [9])]]
