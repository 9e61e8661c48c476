"""The loss of each step, on its way from the device to the trackers.

Losses stay on the device and are read a few at a time, so that a step never waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from library.training.optimization.guard import Guard, SeenBatch
from library.training.watching.trackers import Trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from library.training.optimization.ledger import Balance

READ_EVERY = 10  # steps between two readings of the losses
Figures = dict[str, float | Tensor]  # by the name in logs; tensors are scalars on the device


@dataclass(frozen=True)
class _PendingStep:
    """A finished step whose loss was not read yet.

    number: of the step (1-based).
    bad_in_a_row: bad steps in a row up to this one, as the guard counts them.
    seen: the batches of the step.
    """

    number: int
    loss: Tensor
    bad_in_a_row: Tensor
    figures: Figures
    seen: list[SeenBatch]


class LossLog:
    """Collects the losses of steps on the device, and reads several at once."""

    def __init__(self, accelerator: Accelerator, trackers: Trackers, guard: Guard) -> None:
        """guard: reports the steps that it skipped; their losses count nowhere."""
        self.accelerator, self.trackers, self.guard = accelerator, trackers, guard
        self._unread: list[_PendingStep] = []
        self._epoch_sum, self._epoch_count, self._epoch = 0.0, 0, -1
        self._before: float | None = None  # the average of the epoch before
        self.done = 0  # the latest step that was added

    @property
    def average(self) -> float | None:
        """Mean loss of the epoch so far, over the steps that were read; until one was, of the epoch before.
        None before the first.
        """
        return self._epoch_sum / self._epoch_count if self._epoch_count else self._before

    def add(self, step: int, epoch: int, loss: Tensor, figures: Figures) -> None:
        """Collect the loss and other figures of a finished (1-based) step. They are read within the next
        READ_EVERY steps.
        """
        if epoch != self._epoch:
            self.read()
            self._before = self.average
            self._epoch_sum, self._epoch_count, self._epoch = 0.0, 0, epoch
        self.done = step
        self._unread.append(_PendingStep(step, loss, self.guard.bad_in_a_row, figures, self.guard.pop_seen()))
        if len(self._unread) >= READ_EVERY or step == 1:  # the first shows at once
            self.read()

    def read(self) -> None:
        """Read the collected losses. Raises TooManyBadSteps when too many steps in a row were skipped."""
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        # One tensor (steps, 2), so that processes exchange it, and the device is read, only once.
        stacked = torch.stack([torch.stack([step.loss, step.bad_in_a_row]) for step in unread])
        for step, (loss, bad_in_a_row) in zip(
            unread, self.accelerator.reduce(stacked, "mean").tolist(), strict=True
        ):
            if bad_in_a_row:
                self.guard.report(step.number, loss, bad_in_a_row, step.seen)
            # A skipped step counts nowhere. Under a loss scaler, one with a finite loss is a mere overflow.
            if not math.isfinite(loss) or (bad_in_a_row and self.accelerator.scaler is None):
                continue
            self._epoch_sum, self._epoch_count = self._epoch_sum + loss, self._epoch_count + 1
            numbers = {name: float(figure) for name, figure in step.figures.items()}
            self.trackers.write(step.number, {"loss/current": loss, "loss/average": self.average} | numbers)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write other figures of a step."""
        self.trackers.write(step, values)

    def conclude(self, balance: Balance | None, patience: float) -> None:
        """Read the rest, and close the trackers, with the balance if there is one; that may take `patience`
        seconds.
        """
        self.read()
        if balance is not None:
            self.trackers.conclude(balance)
        self.trackers.close(patience)
