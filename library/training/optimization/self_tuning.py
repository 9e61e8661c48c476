"""Optimizers that adapt their own learning rate: D-Adaptation and Prodigy, which estimate its size;
AdaFactor's relative steps; schedule-free ones. They are recognised by their attributes, not by their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from library.problems import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from library.training.run import TrainingRun

SMALL_RATE = 0.1  # D-Adaptation and Prodigy multiply their estimate by the given rate; 1 is usual


def estimates_rate(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer estimates the size of its steps, d, from all gradients together."""
    return "d" in optimizer.param_groups[0]


def has_relative_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's rate is a function of its own steps, as AdaFactor's is with relative_step."""
    return optimizer.param_groups[0]["lr"] is None


class ScheduleFree(Protocol):
    """An optimizer whose result is an average of the weights that it trains: `eval` puts the average into the
    parameters, `train` puts the trained weights back.
    """

    param_groups: list[dict[str, Any]]

    def train(self) -> None: ...

    def eval(self) -> None: ...


def is_schedule_free(optimizer: torch.optim.Optimizer) -> TypeGuard[ScheduleFree]:
    """Whether the optimizer's result is an average, see `ScheduleFree`."""
    return all(callable(getattr(innermost(optimizer), name, None)) for name in ("train", "eval"))


def begin_training(optimizer: torch.optim.Optimizer) -> None:
    """Switch a schedule-free optimizer to training, before the first step."""
    if is_schedule_free(optimizer):
        optimizer.train()


@contextmanager
def schedule_free_result(optimizer: ScheduleFree) -> Iterator[None]:
    """Context manager; inside it the parameters hold the average that is a schedule-free optimizer's result.

    Afterwards they are what they were, bit for bit: `eval` followed by `train` would round. Meanwhile the
    trained weights are kept on the CPU.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = [parameter.detach().to("cpu", copy=True) for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        for parameter, values in zip(parameters, kept, strict=True):
            parameter.data.copy_(values)


def group_settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The settings of each group, without what the optimizer learned: the arguments that its class takes."""
    names = inspect.signature(type(innermost(optimizer))).parameters.keys() - {"params"}
    return [{key: group[key] for key in names if key in group} for group in optimizer.param_groups]


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer as its package made it, without accelerate's wrapper and without `RoundedOptimizer`."""
    from library.training.optimization.rounding import RoundedOptimizer

    bare = unwrapped(optimizer)
    return bare.inner if isinstance(bare, RoundedOptimizer) else bare


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer without accelerate's wrapper."""
    from accelerate.optimizer import AcceleratedOptimizer

    return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer


def rates_for_logs(optimizer: torch.optim.Optimizer) -> dict[str, float | Tensor]:
    """The learning rates of the last step, by their names in logs; a Tensor where it is on a device.

    `lr/<group>` is what the schedule or the optimizer itself chose; with D-Adaptation and Prodigy
    `lr/d*lr/<group>` is the rate that results.
    """
    found, optimizer = {}, innermost(optimizer)
    for group in optimizer.param_groups:
        name = group["name"]
        rate = _own_rate(optimizer, group) if group["lr"] is None else group.get("scheduled_lr", group["lr"])
        if rate is not None:
            found[f"lr/{name}"] = rate
        if "d" in group:
            found[f"lr/d*lr/{name}"] = group["d"] * group["lr"]
    return found


def _own_rate(optimizer: torch.optim.Optimizer, group: dict) -> Tensor | None:
    """AdaFactor's rate for the group's first parameter, as transformers' AdafactorSchedule reads it."""
    adafactor: Any = optimizer  # only Adafactor has relative steps
    return adafactor.rate_of(group["params"][0])


def require_partial_steps(optimizer: torch.optim.Optimizer, option: str, where: str) -> None:
    """Raises UserError when an optimizer needs all gradients together."""
    if estimates_rate(optimizer):
        cause = f"does not work with {option}: it finds its rate from all gradients together"
        raise UserError.of(where, cause, "choose another one, or leave that out")


def require_one_rate(optimizer: torch.optim.Optimizer, where: str) -> None:
    """Raises UserError when an optimizer that estimates the size of its rate is given several rates."""
    rates = sorted({group["lr"] for group in optimizer.param_groups})
    if estimates_rate(optimizer) and len(rates) > 1:
        cause = f"has one learning rate for everything, this run gives {', '.join(map(str, rates))}"
        raise UserError.of(where, cause, "give all parts the same, or 0 to those not to be trained")


def optimizer_warnings(optimizer: torch.optim.Optimizer, run: TrainingRun) -> Iterator[str]:
    """What to know about a run's optimizer and about options that it ignores, a line each."""
    name, group, schedule = run.optimizer.optimizer_name, optimizer.param_groups[0], run.schedule
    has_schedule = bool(schedule.lr_scheduler_type) or schedule.lr_scheduler not in ("constant", "adafactor")
    if estimates_rate(optimizer) and (rate := group["lr"]) <= SMALL_RATE:
        yield f"--learning_rate {rate:g} is small for {name}, which finds the rate's size itself; 1 is usual"
    if has_relative_steps(optimizer):
        what = "--learning_rate and --lr_scheduler do" if has_schedule else "--learning_rate does"
        yield f"{name} sets its rate itself: {what} not count without --optimizer_args relative_step=False"
    elif "relative_step" in group:
        if schedule.lr_scheduler != "constant_with_warmup":
            yield f"--lr_scheduler constant_with_warmup suits {name} with relative_step=False"
        if run.training.max_grad_norm:
            yield f"--max_grad_norm 0 suits {name}, which clips its steps itself"
    if is_schedule_free(optimizer) and has_schedule:
        hint = "; it warms up with --optimizer_args warmup_steps=100" if "warmup_steps" in group else ""
        yield f"--lr_scheduler has no effect with {name}{hint}"
    if is_schedule_free(optimizer) and run.averaging.use_ema:
        yield f"--use_ema shows averages of the weights that {name} trains with, not its own average"
    if getattr(optimizer, "is_paged", False) and group["params"][0].device.type == "cpu":
        yield f"{name} is paged on a GPU only; on the CPU its state stays where it is"
