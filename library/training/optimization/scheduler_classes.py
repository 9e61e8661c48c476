"""Learning rates by a scheduler class: --lr_scheduler_type, of torch.optim.lr_scheduler or any package.

Such a scheduler counts its own steps. Here it drives a stand-in with the optimizer's groups and is replayed
from the start of the run, so that its rates are a function of the step, like those of all other schedules,
and a state holds nothing of it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from library.problems import UserError
from library.training.optimization.arguments import find_class
from library.training.optimization.self_tuning import innermost

SCHEDULED_KEYS = (
    "lr",
    "momentum",
    "betas",
)  # what schedulers set: OneCycleLR and CyclicLR change momenta too


class ClassSchedule:
    """The learning rates (and momenta) of a run by a scheduler class."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, name: str, arguments: dict[str, Any], total_steps: int
    ) -> None:
        """Raises UserError when there is no such class or it does not take these arguments or steps."""
        self.where = f"--lr_scheduler_type {name}"
        self.optimizer, self.arguments = optimizer, arguments
        path = name if "." in name else f"torch.optim.lr_scheduler.{name}"
        self.kind = find_class(self.where, path, "give a class of torch.optim.lr_scheduler or package.Class")
        _require_plain_step(self.kind, self.where)
        self._initial = _StandIn(innermost(optimizer))
        self._start()
        self._advance_to(
            total_steps - 1
        )  # a class that cannot reach the last step is refused before the first

    def rates_at(self, step: int) -> list[float]:
        """The rate of each parameter group for a (0-based) step."""
        self._advance_to(step)
        return [group["lr"] for group in self._stand_in.param_groups]

    def set_rates(self, step: int) -> None:
        """Set the optimizer's rates for a (0-based) step."""
        self._advance_to(step)
        for group, driven in zip(self.optimizer.param_groups, self._stand_in.param_groups, strict=True):
            group |= {key: driven[key] for key in SCHEDULED_KEYS if key in group}

    def _start(self) -> None:
        self._stand_in, self._step = _StandIn(self._initial), 0
        try:
            self._scheduler = self.kind(self._stand_in, **self.arguments)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError.of(self.where, f"does not take these arguments: {error}") from None

    def _advance_to(self, step: int) -> None:
        if step < self._step:  # a scheduler cannot step back
            self._start()
        try:
            while self._step < step:
                self._stand_in.step()
                self._scheduler.step()
                self._step += 1
        except (ValueError, TypeError, ArithmeticError) as error:  # from a class that we know nothing about
            raise UserError.of(self.where, f"has no rate for step {self._step + 2}: {error}") from None


class _StandIn(torch.optim.Optimizer):
    """An optimizer's groups and defaults, with one dummy parameter in each group."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        groups = [
            {**group, "params": [torch.nn.Parameter(torch.zeros(1))]} for group in optimizer.param_groups
        ]
        super().__init__(groups, dict(optimizer.defaults))

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes no closures
        """Do nothing: schedulers warn when they step before their optimizer does."""


def _require_plain_step(kind: type, where: str) -> None:
    """Raises UserError for a class whose step() needs arguments, as ReduceLROnPlateau's needs a loss."""
    step = getattr(kind, "step", None)
    if step is None:
        raise UserError.of(where, "is no scheduler: it has no step()")
    _, *parameters = inspect.signature(step).parameters.values()
    if wanted := [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]:
        cause = f"wants {wanted[0]} at each step, and rates here depend on the step alone"
        raise UserError.of(where, cause, "choose another one")
