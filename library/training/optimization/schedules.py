"""Learning-rate schedules: a table of formulas, each from a step to the factor of the learning rate.

Formulas and names are those of transformers and diffusers. A rate depends on the step alone, so a state holds
nothing of its schedule, and a resumed run follows the options that it is given.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from library.options.schedule import ScheduleOptions
from library.problems import UserError, warn
from library.training.optimization.arguments import read_arguments
from library.training.optimization.scheduler_classes import ClassSchedule
from library.training.optimization.self_tuning import has_relative_steps, is_schedule_free

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Span:
    """The lengths of a schedule, in steps.

    warmup: of its warm-up.
    decay: of the decay at its end.
    total: of the whole run.
    rate: the learning rate that factors multiply.
    """

    warmup: int
    decay: int
    total: int
    rate: float

    def progress(self, step: float) -> float:
        """How much of what follows the warm-up is done at a step, from 0 to 1."""
        return (step - self.warmup) / max(1, self.total - self.warmup)


Formula = Callable[..., float]


def constant(step: int, span: Span) -> float:
    return 1.0


def constant_with_warmup(step: int, span: Span) -> float:
    return min(1.0, step / max(1, span.warmup)) if span.warmup else 1.0


def linear(step: int, span: Span) -> float:
    """Falls linearly to 0 at the end."""
    return 1 - span.progress(step)


def cosine(step: int, span: Span, *, num_cycles: float = 0.5) -> float:
    """Falls along a cosine to 0 at the end; num_cycles counts whole waves."""
    return 0.5 * (1 + math.cos(math.pi * num_cycles * 2 * span.progress(step)))


def cosine_with_restarts(step: int, span: Span, *, num_cycles: int = 1) -> float:
    """Falls along half a cosine num_cycles times, each from the full rate."""
    return 0.5 * (1 + math.cos(math.pi * ((num_cycles * span.progress(step)) % 1)))


def polynomial(step: int, span: Span, *, power: float = 1.0, lr_end: float = 1e-7) -> float:
    """Falls to the rate lr_end as (1 - progress)^power."""
    if lr_end >= span.rate:
        raise ValueError(f"ends at lr_end={lr_end}, which is not below the learning rate {span.rate}")
    end = lr_end / span.rate
    return (1 - end) * (1 - span.progress(step)) ** power + end


def inverse_sqrt(step: int, span: Span, *, timescale: float | None = None) -> float:
    """1 / sqrt(1 + steps since the warm-up / timescale)."""
    return 1 / math.sqrt(1 + (step - span.warmup) / (timescale or span.warmup or 10_000))


def cosine_with_min_lr(
    step: int,
    span: Span,
    *,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> float:
    """A cosine that ends at the rate min_lr, or at min_lr_rate of the full one."""
    return _with_minimum(
        cosine(step, span, num_cycles=num_cycles), _minimum_factor(span, min_lr, min_lr_rate)
    )


def cosine_warmup_with_min_lr(
    step: int,
    span: Span,
    *,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> float:
    """`cosine_with_min_lr`, one step ahead. The warm-up starts at warmup_lr_rate of the rate, by default at
    1/warmup of it.
    """
    if step < span.warmup:
        if warmup_lr_rate is None:
            return (step + 1) / span.warmup
        return warmup_lr_rate + (1 - warmup_lr_rate) * step / max(1, span.warmup - 1)
    return _with_minimum(
        cosine(step + 1, span, num_cycles=num_cycles), _minimum_factor(span, min_lr, min_lr_rate)
    )


def warmup_stable_decay(
    step: int,
    span: Span,
    *,
    num_cycles: float = 0.5,
    min_lr_ratio: float = 0.0,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
) -> float:
    """Rises from min_lr_ratio to 1, stays, and falls back in the last span.decay steps."""
    if step < span.warmup:
        return _with_minimum(_RISES[warmup_type](step / span.warmup), min_lr_ratio)
    if step < span.total - span.decay:
        return 1.0
    progress = (step - span.total + span.decay) / max(1, span.decay)
    return _with_minimum(_FALLS[decay_type](progress, num_cycles), min_lr_ratio)


_RISES: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: 0.5 * (1 - math.cos(math.pi * progress)),
    "1-sqrt": lambda progress: 1 - math.sqrt(1 - progress),
}
_FALLS: dict[str, Callable[[float, float], float]] = {
    "linear": lambda progress, cycles: 1 - progress,
    "cosine": lambda progress, cycles: 0.5 * (1 + math.cos(math.pi * cycles * 2 * progress)),
    "1-sqrt": lambda progress, cycles: 1 - math.sqrt(progress),
}


def piecewise_constant(step: int, span: Span, *, step_rules: str) -> float:
    """`1:10,0.1:30,0.01` is 1 before step 10, 0.1 before step 30, then 0.01."""
    *rules, last = step_rules.split(",")
    pairs = sorted((int(end), float(factor)) for factor, end in (rule.split(":") for rule in rules))
    return next((factor for end, factor in pairs if step < end), float(last))


def _with_minimum(factor: float, lowest: float) -> float:
    return factor * (1 - lowest) + lowest


def _minimum_factor(span: Span, rate: float | None, share: float | None) -> float:
    if rate is not None and share is not None:
        raise ValueError("takes min_lr or a ratio, not both")
    return rate / span.rate if rate is not None else share or 0.0


SCHEDULES: dict[str, Formula] = {
    "constant": constant,
    "constant_with_warmup": constant_with_warmup,
    "linear": linear,
    "cosine": cosine,
    "cosine_with_restarts": cosine_with_restarts,
    "polynomial": polynomial,
    "inverse_sqrt": inverse_sqrt,
    "cosine_with_min_lr": cosine_with_min_lr,
    "cosine_warmup_with_min_lr": cosine_warmup_with_min_lr,
    "warmup_stable_decay": warmup_stable_decay,
    "piecewise_constant": piecewise_constant,
    "adafactor": constant,  # AdaFactor sets its own rate
}
_OWN_WARMUP = ("cosine_warmup_with_min_lr", "warmup_stable_decay")  # formulas that include the warm-up


class Schedule:
    """The learning rates of a run by a formula of SCHEDULES."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, name: str, span: Span, arguments: dict[str, Any]
    ) -> None:
        self.name, self.span, self.arguments = name, span, arguments
        self.optimizer = optimizer  # not its groups: loading a state replaces them
        self.base_rates = [group["lr"] for group in optimizer.param_groups]

    def factor_at(self, step: int) -> float:
        """The factor of all rates at a (0-based) step."""
        if step < self.span.warmup and self.name not in _OWN_WARMUP:
            return constant_with_warmup(step, self.span)
        return max(0.0, SCHEDULES[self.name](step, self.span, **self.arguments))

    def rates_at(self, step: int) -> list[float | None]:
        """The rate of each parameter group for a (0-based) step; None where the optimizer sets it itself."""
        factor = self.factor_at(step)
        return [None if base is None else base * factor for base in self.base_rates]

    def set_rates(self, step: int) -> None:
        """Set the optimizer's rates for a (0-based) step."""
        for group, rate in zip(self.optimizer.param_groups, self.rates_at(step), strict=True):
            group["lr"] = rate


def make_schedule(
    optimizer: torch.optim.Optimizer, options: ScheduleOptions, total_steps: int | None
) -> Schedule | ClassSchedule:
    """The schedule of a run. An optimizer that needs none keeps its rate.

    total_steps: of the run; None: not known yet, in a trial.
    Raises UserError for arguments that the schedule does not take.
    """
    if options.lr_scheduler == "adafactor" and not has_relative_steps(optimizer):
        cause = "is of --optimizer_type AdaFactor with relative_step=True"
        raise UserError.of("--lr_scheduler adafactor", cause, "choose another one")
    span = _span(optimizer, options, sys.maxsize if total_steps is None else total_steps)
    if has_relative_steps(optimizer) or is_schedule_free(optimizer):
        return Schedule(optimizer, "constant", replace(span, warmup=0), {})
    given = read_arguments("--lr_scheduler_args", options.lr_scheduler_args)
    if options.lr_scheduler_type:
        return ClassSchedule(optimizer, options.lr_scheduler_type, given, total_steps or 1)
    arguments = _from_options(options) | given
    schedule = Schedule(optimizer, options.lr_scheduler, span, arguments)
    _check_arguments(options.lr_scheduler, arguments)
    try:  # wrong values show at these steps, before the run starts
        for step in (0, span.warmup, span.total - 1):
            schedule.factor_at(step)
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        raise UserError.of(f"--lr_scheduler {options.lr_scheduler}", str(error)) from None
    _check_first_rate(optimizer, schedule)
    return schedule


def _check_first_rate(optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
    if type(optimizer).__name__ == "DAdaptSGD" and schedule.factor_at(0) == 0:
        cause = "starts at a learning rate of 0, which DAdaptSGD divides by"
        fix = "leave it out, or let the rate grow slowly with --optimizer_args growth_rate=1.02"
        raise UserError.of("--lr_warmup_steps", cause, fix)


def _span(optimizer: torch.optim.Optimizer, options: ScheduleOptions, total: int) -> Span:
    warmup, decay = (_steps(steps, total) for steps in (options.lr_warmup_steps, options.lr_decay_steps))
    if options.lr_scheduler == "warmup_stable_decay" and warmup + decay > total:
        cause = f"{decay} steps of decay after {warmup} of warm-up are more than the run's {total}"
        raise UserError.of("--lr_decay_steps", cause, "lower one of them")
    if warmup >= total and options.lr_scheduler != "constant":
        warn(f"--lr_warmup_steps {warmup}: the run ends before its learning rate is reached ({total} steps)")
    return Span(warmup, decay, total, max(group["lr"] or 0.0 for group in optimizer.param_groups))


def _steps(steps: int | float, total: int) -> int:
    """A number of steps, given as such or as a fraction of all steps."""
    return steps if isinstance(steps, int) else int(steps * total)


def _from_options(options: ScheduleOptions) -> dict[str, Any]:
    """Arguments that have options of their own. A cosine counts whole waves, the option half ones."""
    cycles, lowest = options.lr_scheduler_num_cycles, options.lr_scheduler_min_lr_ratio
    waves = {"num_cycles": cycles / 2}
    arguments: dict[str, dict[str, Any]] = {
        "cosine_with_restarts": {"num_cycles": cycles},
        "polynomial": {"power": options.lr_scheduler_power},
        "inverse_sqrt": {"timescale": options.lr_scheduler_timescale},
        "cosine_with_min_lr": {**waves, "min_lr_rate": lowest},
        "cosine_warmup_with_min_lr": {**waves, "min_lr_rate": lowest},
        "warmup_stable_decay": {**waves, "min_lr_ratio": lowest or 0.0},
    }
    return arguments.get(options.lr_scheduler, {})


def _check_arguments(name: str, arguments: dict[str, Any]) -> None:
    known = [
        key for key, p in inspect.signature(SCHEDULES[name]).parameters.items() if p.kind is p.KEYWORD_ONLY
    ]
    if unknown := [key for key in arguments if key not in known]:
        fix = f"it takes {', '.join(known)}" if known else "leave it out"
        raise UserError.of(f"--lr_scheduler_args {unknown[0]}", f"{name} takes no such argument", fix)


def describe_schedule(options: ScheduleOptions) -> str:
    """The schedule's name in a file's metadata."""
    return options.lr_scheduler_type or options.lr_scheduler
