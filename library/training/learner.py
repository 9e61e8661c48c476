"""Everything that training changes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.training.optimization.self_tuning import begin_training, is_schedule_free, result_shown

if TYPE_CHECKING:
    import torch

    from library.training.optimization.ema import Average
    from library.training.optimization.ledger import Ledger
    from library.training.tasks.task import Task


@dataclass(frozen=True)
class Learner:
    """Everything that training changes: what a state holds."""

    task: Task
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    average: Average | None
    ledger: Ledger

    def shown(self, dtype: torch.dtype | None = None) -> AbstractContextManager[None]:
        """Inside, the task is as it is looked at, in previews, validation and results: with --use_ema it has
        the averages, with a schedule-free optimizer that optimizer's own.

        dtype: of averages, which are finer than weights of 16 bits; None: the weights' own.
        """
        if self.average is not None:
            return self.average.shown(dtype)
        return result_shown(self.optimizer) if is_schedule_free(self.optimizer) else nullcontext()

    def train(self) -> None:
        """Tell an optimizer that wants to know that training begins."""
        begin_training(self.optimizer)
