"""Learning-rate schedules: a table of functions (step, warm-up steps, all steps) -> factor of the rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from library.options.optimizer import OptimizerOptions

if TYPE_CHECKING:
    import torch

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


class Schedule:
    """The learning rates of a run. They depend on the step alone, so there is nothing to save."""

    def __init__(self, optimizer: torch.optim.Optimizer, options: OptimizerOptions, total_steps: int) -> None:
        warmup = options.lr_warmup_steps
        self.warmup_steps = warmup if isinstance(warmup, int) else int(warmup * total_steps)
        self.factor, self.total_steps = SCHEDULES[options.lr_scheduler], total_steps
        self.optimizer = optimizer  # not its groups: loading a state replaces them
        self.base_rates = [group["lr"] for group in optimizer.param_groups]

    def rates_at(self, step: int) -> list[float]:
        """The rate of each parameter group for a (0-based) step."""
        factor = max(0.0, self.factor(step, self.warmup_steps, self.total_steps))
        return [base * factor for base in self.base_rates]

    def set_rates(self, step: int) -> dict[str, float]:
        """Give the optimizer its rates for a (0-based) step. Returns them by the names they have in logs."""
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, self.rates_at(step), strict=True):
            group["lr"] = rate
        return {f"lr/{group['name']}": group["lr"] for group in groups}
