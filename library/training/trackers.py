"""The loss and learning rates of a run: in the progress bar, and in the trackers that are asked for.

Losses stay on the device; they are read a few at a time, so that a step never waits for the device. A tracker
that fails is told once and left alone: training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from library.problems import warn
from library.training.guard import Guard, Seen

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL.Image import Image

    from library.training.ledger import Balance

READ_EVERY = 10  # steps between two readings of the losses
Figures = dict[str, float | Tensor]  # by the name in logs; tensors are scalars on the device


@dataclass(frozen=True)
class Drawn:
    """A preview: the (0-based) number of its prompt, the prompt, the picture."""

    number: int
    prompt: str
    picture: Image


class Tracker(Protocol):
    """Where figures go. Any of these may fail."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def show(self, step: int, previews: list[Drawn]) -> None: ...

    def conclude(self, balance: Balance) -> None: ...

    def close(self, patience: float) -> None: ...


@dataclass
class Trackers:
    """A run's trackers by name; none but in the first process. place: what a later run needs to go on in
    the same log.
    """

    trackers: dict[str, Tracker] = field(default_factory=dict)
    place: dict[str, str] = field(default_factory=dict)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after `step` steps, by name."""
        self._each(lambda tracker: tracker.write(step, values))

    def show(self, step: int, previews: list[Drawn]) -> None:
        """Pictures drawn after `step` steps."""
        self._each(lambda tracker: tracker.show(step, previews))

    def conclude(self, balance: Balance) -> None:
        """What was trained, at a run's end."""
        self._each(lambda tracker: tracker.conclude(balance))

    def close(self, patience: float) -> None:
        """Send what is left, for at most so many seconds."""
        self._each(lambda tracker: tracker.close(patience))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # libraries, networks and disks fail in many ways
                del self.trackers[name]
                warn(f"{name} failed ({tell(error)}): this run goes on without it")


def tell(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@dataclass(frozen=True)
class _Unread:
    """A finished step. in_a_row: as of the guard."""

    number: int
    loss: Tensor
    in_a_row: Tensor
    figures: Figures
    seen: list[Seen]


class LossLog:
    """Collects each step's loss on the device and reads them together."""

    def __init__(self, accelerator: Accelerator, trackers: Trackers, guard: Guard) -> None:
        """guard: is told of the steps that it left out; their losses count nowhere."""
        self.accelerator, self.trackers, self.guard = accelerator, trackers, guard
        self._unread: list[_Unread] = []
        self._epoch_sum, self._epoch_count, self._epoch = 0.0, 0, -1
        self.done = 0  # the latest step that was added

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
        self.done = step
        self._unread.append(_Unread(step, loss, self.guard.in_a_row, figures, self.guard.forget()))
        if len(self._unread) >= READ_EVERY or step == 1:
            self.read()

    def read(self) -> None:
        """Read what was collected. Raises BrokeDown when too many steps in a row were left out."""
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        stacked = torch.stack([torch.stack([step.loss, step.in_a_row]) for step in unread])
        for step, (loss, in_a_row) in zip(
            unread, self.accelerator.reduce(stacked, "mean").tolist(), strict=True
        ):
            if in_a_row:
                self.guard.tell(step.number, loss, in_a_row, step.seen)
            if not math.isfinite(loss) or (in_a_row and self.accelerator.scaler is None):
                continue
            self._epoch_sum, self._epoch_count = self._epoch_sum + loss, self._epoch_count + 1
            numbers = {name: float(figure) for name, figure in step.figures.items()}
            self.trackers.write(step.number, {"loss/current": loss, "loss/average": self.average} | numbers)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write other figures of a step down."""
        self.trackers.write(step, values)

    def conclude(self, balance: Balance) -> None:
        """Close it at a run's end, with what was trained."""
        self.trackers.conclude(balance)
        self.close()

    def close(self, patience: float = 60.0) -> None:
        """Read the rest and close the trackers, which may take `patience` seconds."""
        self.read()
        self.trackers.close(patience)
