"""One step of the optimizer, and what is noted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from library.training.optimization.guard import Guard, gradient_norm
from library.training.optimization.ledger import Ledger
from library.training.session import Session
from library.training.tasks.task import Task


@dataclass(frozen=True)
class Update:
    """Takes steps on the gradients that were gathered, unless they are no numbers. max_grad_norm: 0 does not
    clip.
    """

    session: Session
    task: Task
    optimizer: torch.optim.Optimizer
    guard: Guard
    ledger: Ledger
    max_grad_norm: float
    is_in_backward: ClassVar[bool] = False  # whether the backward pass changes weights already

    def __call__(self, step: int, loss: Tensor) -> None:
        """loss: of the (0-based) step, in this process."""
        groups = self.optimizer.param_groups
        trained = [parameter for group in groups for parameter in group["params"]]
        if self.max_grad_norm:
            norm = self.session.accelerator.clip_grad_norm_(trained, self.max_grad_norm)
            self.ledger.note_gradients(step, clipped_by(norm, self.max_grad_norm))
        else:
            norm = gradient_norm(trained)
            self.ledger.note_gradients(step, self._scale(step))
        self.ledger.note_step(groups, norm, trains_text=self.task.trains_text(step))
        self.guard.step(loss, norm)
        self.optimizer.zero_grad()

    def _scale(self, step: int) -> float:
        """What a loss scaler multiplied gradients by that were not clipped; read only when they are noted."""
        scaler = self.session.accelerator.scaler
        return 1.0 if scaler is None or not self.ledger.notes_gradients(step) else scaler.get_scale()


def clipped_by(norm: Tensor, limit: float) -> Tensor:
    """What gradients of this norm were multiplied by, as in torch.nn.utils.clip_grad_norm_."""
    return (limit / (norm + 1e-6)).clamp(max=1)
