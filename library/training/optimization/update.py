"""The optimizer's part of a step: clip the gradients, then step unless they are bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from library.training.optimization.gradients import clip_factor
from library.training.optimization.guard import Guard
from library.training.optimization.ledger import Ledger
from library.training.session import Session
from library.training.sharding.whole import Weights


@dataclass(frozen=True)
class Update:
    """Steps after the backward pass, on all gradients together.

    weights: how the processes hold what is trained.
    max_grad_norm: what the norm of all gradients together is clipped to; 0 does not clip.
    is_in_backward: whether weights change during the backward pass already.
    """

    session: Session
    optimizer: torch.optim.Optimizer
    guard: Guard
    ledger: Ledger
    weights: Weights
    max_grad_norm: float
    is_in_backward: ClassVar[bool] = False

    def clip_gradients(self, step: int) -> Tensor:
        """Clip the gradients of the (0-based) step.

        Returns their norm before clipping, a float32 scalar, equal in all processes; it is not finite when a
        gradient is not.
        """
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self.max_grad_norm:
            norm = self.weights.clip(trained, self.max_grad_norm)
            self.ledger.measure_gradients(step, clip_factor(norm, self.max_grad_norm))
        else:
            norm = self.weights.norm(trained)
            self.ledger.measure_gradients(step, self._scale(step))
        return norm

    def take_step(self, loss: Tensor, norm: Tensor) -> None:
        """Take the optimizer's step, or skip it when the norm says that gradients are bad.

        loss: of the step, in this process.
        """
        self.guard.step(loss, norm)
        self.optimizer.zero_grad()

    def _scale(self, step: int) -> float:
        """The loss scaler's factor of gradients that were not clipped; read only when they are measured."""
        scaler = self.session.accelerator.scaler
        return 1.0 if scaler is None or not self.ledger.measures_gradients(step) else scaler.get_scale()
