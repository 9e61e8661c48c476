"""The optimizer's part of a step: gradients are clipped, then it steps unless they are broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from library.training.optimization.guard import Guard, gradient_norm
from library.training.optimization.ledger import Ledger
from library.training.session import Session


@dataclass(frozen=True)
class Update:
    """Steps after the backward pass, on all gradients.

    max_grad_norm: what the norm of all gradients together is clipped to; 0 does not clip.
    is_in_backward: whether the backward pass changes weights already.
    """

    session: Session
    optimizer: torch.optim.Optimizer
    guard: Guard
    ledger: Ledger
    max_grad_norm: float
    is_in_backward: ClassVar[bool] = False

    def clip_gradients(self, step: int) -> Tensor:
        """Clip the gradients of the (0-based) step. Returns their norm before, a float32 scalar, equal in all
        processes; it is no number when a gradient is none.
        """
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self.max_grad_norm:
            norm = self.session.accelerator.clip_grad_norm_(trained, self.max_grad_norm)
            self.ledger.note_gradients(step, clipped_by(norm, self.max_grad_norm))
        else:
            norm = gradient_norm(trained)
            self.ledger.note_gradients(step, self._scale(step))
        return norm

    def take_step(self, loss: Tensor, norm: Tensor) -> None:
        """Take the optimizer's step, unless gradients of this norm are broken. loss: of the step, in this
        process.
        """
        self.guard.step(loss, norm)
        self.optimizer.zero_grad()

    def _scale(self, step: int) -> float:
        """What a loss scaler multiplied gradients by that were not clipped; read only when they are noted."""
        scaler = self.session.accelerator.scaler
        return 1.0 if scaler is None or not self.ledger.notes_gradients(step) else scaler.get_scale()


def clipped_by(norm: Tensor, limit: float) -> Tensor:
    """What gradients of this norm were multiplied by, as in torch.nn.utils.clip_grad_norm_."""
    return (limit / (norm + 1e-6)).clamp(max=1)
