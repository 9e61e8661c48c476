"""Learning-rate schedules: a table of functions (step, warm-up steps, all steps) -> factor of the rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from library.options.optimizer import OptimizerOptions

Factor = Callable[[int, int, int], float]


def constant(step: int, warmup: int, total: int) -> float:
    return 1.0


def constant_with_warmup(step: int, warmup: int, total: int) -> float:
    return _warm(step, warmup)


def linear(step: int, warmup: int, total: int) -> float:
    """Rises to 1 in the warm-up, then falls in a line to 0 at the end."""
    return _warm(step, warmup) if step < warmup else (total - step) / max(1, total - warmup)


def cosine(step: int, warmup: int, total: int) -> float:
    """Rises to 1 in the warm-up, then falls along half a cosine to 0 at the end."""
    progress = (step - warmup) / max(1, total - warmup)
    return _warm(step, warmup) if step < warmup else 0.5 * (1 + math.cos(math.pi * progress))


def _warm(step: int, warmup: int) -> float:
    return min(1.0, step / max(1, warmup)) if warmup else 1.0


SCHEDULES: dict[str, Factor] = {
    "constant": constant,
    "constant_with_warmup": constant_with_warmup,
    "linear": linear,
    "cosine": cosine,
}


def make_schedule(
    optimizer: torch.optim.Optimizer, options: OptimizerOptions, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule of a run, to be stepped once per optimizer step."""
    warmup = options.lr_warmup_steps
    warmup_steps = warmup if isinstance(warmup, int) else int(warmup * total_steps)
    factor = SCHEDULES[options.lr_scheduler]
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: max(0.0, factor(step, warmup_steps, total_steps))
    )
