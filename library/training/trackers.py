"""The loss and learning rates of a run: in the progress bar, and in TensorBoard when asked for.

Losses stay on the device; they are read a few at a time, so that a step never waits for the device.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from library.options.logging import LoggingOptions
from library.problems import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

READ_EVERY = 10  # steps between two readings of the losses
Figures = dict[str, float | Tensor]  # by the name in logs; tensors are scalars on the device


class LossLog:
    """Collects each step's loss on the device and reads them together."""

    def __init__(self, accelerator: Accelerator, writer: TensorBoardWriter | None) -> None:
        self.accelerator, self.writer = accelerator, writer
        self._unread: list[tuple[int, Tensor, Figures]] = []
        self._epoch_sum, self._epoch_count, self._epoch = 0.0, 0, -1

    @property
    def average(self) -> float | None:
        """Mean loss of the epoch so far, over the steps that were read; None before the first."""
        return self._epoch_sum / self._epoch_count if self._epoch_count else None

    def add(self, step: int, epoch: int, loss: Tensor, figures: Figures) -> None:
        """Keep the loss of a finished step (1-based), and other figures of it; they are read within the next
        READ_EVERY steps.
        """
        if epoch != self._epoch:
            self.read()
            self._epoch_sum, self._epoch_count, self._epoch = 0.0, 0, epoch
        self._unread.append((step, loss, figures))
        if len(self._unread) >= READ_EVERY or step == 1:
            self.read()

    def read(self) -> None:
        """Read what was collected. Raises UserError at the first loss that is not a finite number."""
        if not self._unread:
            return
        stacked = self.accelerator.reduce(torch.stack([loss for _, loss, _ in self._unread]), "mean")
        losses, unread, self._unread = stacked.tolist(), self._unread, []
        for (step, _, figures), loss in zip(unread, losses, strict=True):
            if not math.isfinite(loss):
                raise UserError.of(
                    f"step {step}",
                    f"the loss is {loss}: training broke down and was stopped; nothing was saved after it",
                    "lower the learning rate, or train with --mixed_precision bf16 instead of fp16",
                )
            self._epoch_sum, self._epoch_count = self._epoch_sum + loss, self._epoch_count + 1
            if self.writer is not None:
                numbers = {name: float(figure) for name, figure in figures.items()}
                self.writer.write(step, {"loss/current": loss, "loss/average": self.average} | numbers)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write other figures of a step down."""
        if self.writer is not None:
            self.writer.write(step, values)

    def close(self) -> None:
        """Read the rest and close the log files."""
        self.read()
        if self.writer is not None:
            self.writer.close()


class TensorBoardWriter:
    """Writes below `<logging_dir>/<log_prefix><date>/<name>`."""

    def __init__(self, options: LoggingOptions, name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        assert options.logging_dir is not None
        run = (options.log_prefix or "") + time.strftime("%Y%m%d%H%M%S")
        self.folder: Path = options.logging_dir / run / (options.log_tracker_name or name)
        self._writer = SummaryWriter(str(self.folder))

    def write(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()
