"""Everything that training changes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.training.optimization.self_tuning import (
    begin_training,
    is_schedule_free,
    schedule_free_result,
)

if TYPE_CHECKING:
    import torch

    from library.training.optimization.ema import Average
    from library.training.optimization.ledger import Ledger
    from library.training.sharding.whole import Weights
    from library.training.tasks.task import Task


@dataclass(frozen=True)
class Learner:
    """What training changes: what a state holds.

    task: with everything that is trained.
    optimizer: as accelerate prepared it.
    scaler: of the loss, with fp16 only.
    average: the moving average of what is trained, with --use_ema only.
    ledger: how the weights began and how far they moved.
    weights: how the processes hold them.
    """

    task: Task
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    average: Average | None
    ledger: Ledger
    weights: Weights

    def as_result(self, dtype: torch.dtype | None = None) -> AbstractContextManager[None]:
        """Context manager; inside it the task's weights are those that users get, in previews, validation and
        results: the moving average or, with a schedule-free optimizer, that optimizer's own.

        dtype: of averages, which are finer than weights of 16 bits; None: the weights' own.
        """
        return self.weights.as_result(lambda: self._own_as_result(dtype))

    def saving(self) -> AbstractContextManager[bool]:
        """Context manager, entered by all processes together: whether this one saves what it holds."""
        return self.weights.saving(self._own_as_result)

    def _own_as_result(self, dtype: torch.dtype | None = None) -> AbstractContextManager[None]:
        """What `as_result` does to what this process holds."""
        if self.average is not None:
            return self.average.in_place(dtype)
        return schedule_free_result(self.optimizer) if is_schedule_free(self.optimizer) else nullcontext()

    def train(self) -> None:
        """Tell a schedule-free optimizer that training begins."""
        begin_training(self.optimizer)
