"""A step with gradients that are not finite leaves weights and optimizer unchanged."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from library.training.diffusion.objective import DDPM
from library.training.optimization.gradients import gradient_norm
from library.training.optimization.guard import (
    Guard,
    SeenBatch,
    TooManyBadSteps,
    with_nan_gradients,
)
from library.training.optimization.rounding import RoundedOptimizer


def make_guard(optimizer: torch.optim.Optimizer, scaler: object = None, limit: int = 3) -> Guard:
    accelerator = SimpleNamespace(scaler=scaler, num_processes=1)
    sharing = SimpleNamespace(gather=lambda value: [value])
    session = SimpleNamespace(accelerator=accelerator, sharing=lambda: sharing, is_main=True)
    task = SimpleNamespace(objective=DDPM("epsilon"), options=SimpleNamespace(timestep_range=(0, 1000)))
    return Guard(session, task, optimizer, limit, torch.tensor(0.0))


def adamw(fused: bool) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    parameters = [nn.Parameter(torch.arange(4.0)), nn.Parameter(torch.ones(2, 3))]
    return parameters, torch.optim.AdamW(parameters, lr=0.1, fused=fused)


def rounded() -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    parameters = [nn.Parameter(torch.arange(4.0).bfloat16())]
    return parameters, RoundedOptimizer(
        [{"params": parameters}], lambda g: torch.optim.AdamW(g, lr=0.1), seed=1
    )


MAKERS = {"device": lambda: adamw(True), "read": lambda: adamw(False), "16 bits": rounded}


def steps(name: str, losses: list[float]) -> tuple[list[Tensor], dict, float]:
    """Weights, optimizer state and bad steps in a row after steps with these losses."""
    parameters, optimizer = MAKERS[name]()
    guard = make_guard(optimizer)
    for loss in losses:
        total = sum(p.float().square().sum() for p in parameters) * loss
        with_nan_gradients(total).backward()
        guard.step(total.detach(), gradient_norm(parameters))
        optimizer.zero_grad()
    found = copy.deepcopy(optimizer.state_dict())
    return [p.detach().clone() for p in parameters], found, guard.bad_in_a_row.item()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_step_is_as_if_it_had_not_been(name: str, bad: float) -> None:
    plain, plain_state, _ = steps(name, [1.0, 2.0, 3.0])
    found, state, bad_in_a_row = steps(name, [1.0, bad, 2.0, bad, bad, 3.0])
    assert bad_in_a_row == 0
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
    torch.testing.assert_close(state, plain_state, rtol=0, atol=0)
    assert steps(name, [1.0, bad, 2.0, bad, bad])[2] == 2
    started, none, _ = steps(name, [bad])
    torch.testing.assert_close(started, [p.detach() for p in MAKERS[name]()[0]], rtol=0, atol=0)


def test_an_infinite_loss_spoils_all_gradients_and_a_finite_one_none() -> None:
    weight = nn.Parameter(torch.tensor([1e30, 1.0]))
    (gradient,) = torch.autograd.grad(with_nan_gradients(weight.square().sum()), weight)
    assert gradient.isnan().all()
    (gradient,) = torch.autograd.grad(with_nan_gradients((0.5 * weight).sum()), weight)
    assert gradient.tolist() == [0.5, 0.5]


def test_the_norm_is_of_all_gradients_in_float32() -> None:
    first, second = nn.Parameter(torch.zeros(2).half()), nn.Parameter(torch.zeros(1))
    first.grad, second.grad = torch.tensor([40000.0, 0.0]).half(), torch.tensor([30000.0])
    assert gradient_norm([first, second, nn.Parameter(torch.zeros(1))]).item() == pytest.approx(50000)


class Scaler:
    """Stands for a loss scaler: the guard only has to know that there is one."""


def test_overflow_under_a_loss_scaler_is_normal_for_a_while() -> None:
    _, optimizer = adamw(False)
    guard = make_guard(optimizer, Scaler())
    inf, fine = torch.tensor(math.inf), torch.tensor(1.0)
    for _ in range(8):
        guard.step(fine, inf)
    assert guard.bad_in_a_row.item() == 2
    guard.step(torch.tensor(math.nan), inf)
    assert guard.bad_in_a_row.item() == 3
    guard.step(fine, fine)
    assert guard.bad_in_a_row.item() == 0


SEEN = [
    SeenBatch(["a.png", "b.png"], torch.tensor([0.1, 0.2]), torch.tensor([1.0, math.nan])),
    SeenBatch(["c.png"], torch.tensor([0.5]), torch.tensor([2.0])),
]


def test_the_pictures_whose_loss_is_no_number_are_named(capsys: pytest.CaptureFixture) -> None:
    guard = make_guard(adamw(False)[1])
    guard.report(7, math.nan, 1, SEEN)
    guard.report(8, 1.5, 2, SEEN[1:])
    assert capsys.readouterr().err == (
        "warning: step 7: the loss is nan; the step was left out (b.png at timestep 200)\n"
        "warning: step 8: a gradient is no number; the step was left out (c.png at timestep 500)\n"
    )


def test_one_bad_step_too_many_ends_the_run(capsys: pytest.CaptureFixture) -> None:
    guard = make_guard(adamw(False)[1])
    many = [SeenBatch([f"{n}.png" for n in range(10)], torch.zeros(10), torch.full((10,), math.nan))]
    with pytest.raises(TooManyBadSteps, match="step 9: the last steps were all left out"):
        guard.report(9, math.inf, 3, many)
    assert "7.png at timestep 0 and 2 more)" in capsys.readouterr().err


def test_overflow_is_not_told(capsys: pytest.CaptureFixture) -> None:
    make_guard(adamw(False)[1], Scaler()).report(4, 1.0, 0.25, SEEN)
    assert capsys.readouterr().err == ""
