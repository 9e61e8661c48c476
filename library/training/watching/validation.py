"""Validation: the loss on held-out images, with the same noise and timesteps every time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from library.console import progress_bar
from library.data.batch import Batch
from library.options.validation import ValidationOptions
from library.training.interruption import Interruption
from library.training.session import Session
from library.training.tasks.task import Task

TIMES = 4  # timesteps at which every picture is measured


@dataclass(frozen=True)
class Measurement:
    """The result of a validation.

    loss: the mean over `count` pictures.
    standard_error: of that mean; 0 for a single picture.
    count: of the pictures.
    """

    loss: float
    standard_error: float
    count: int

    def __str__(self) -> str:
        return f"{self.loss:.4f} ± {self.standard_error:.4f} ({self.count} images)"


class Validation:
    """Measures the validation loss when it is due.

    batches: called for every validation, gives this process's batches of held-out images; None if no image is
        held out.
    """

    def __init__(
        self,
        options: ValidationOptions,
        task: Task,
        session: Session,
        batches: Callable[[], Iterable[Batch]] | None,
        interruption: Interruption,
        *,
        count: int = 0,
        together: bool = False,
    ) -> None:
        """count: how many batches that are.
        together: all processes measure at the same pace, as each has a share of the weights only.
        """
        self.together = together
        self.count = count
        self.options, self.task, self.session, self.batches = options, task, session, batches
        self.interruption = interruption

    def is_due(self, step: int, epoch: int, epoch_ended: bool) -> bool:
        """Whether a validation is due. --validate_every_n_steps wins over --validate_every_n_epochs.

        step: steps done.
        epoch: the (1-based) epoch that the last of them belongs to.
        """
        options = self.options
        if self.batches is None:
            return False
        if options.validate_every_n_steps:
            return step % options.validate_every_n_steps == 0
        return epoch_ended and epoch % (options.validate_every_n_epochs or 1) == 0

    @torch.no_grad()
    def measure(self) -> Measurement | None:
        """The mean loss of the held-out images. Training continues exactly as without the validation.

        None if the run was asked to stop meanwhile, or no image can be used.
        """
        assert self.batches is not None
        was_training = self.task.training
        self.task.eval()
        losses: list[float] = []
        hidden = not self.session.is_main
        with progress_bar(total=self.count, desc="validation", delay=1, leave=False, disable=hidden) as bar:
            for batch in self.batches():
                losses += self._losses(batch.to(self.session.device))
                bar.update()
                if self._is_stopped():
                    break
        self.task.train(was_training)
        shares = self.session.sharing().gather((losses, self.interruption.requested))
        everyone = [loss for share, _ in shares for loss in share]
        if not everyone or any(stopped for _, stopped in shares):
            return None
        return summarize(everyone)

    def _is_stopped(self) -> bool:
        """Whether the run was asked to stop: where all processes measure together, any of them."""
        requested = self.interruption.requested
        return self.session.any_wants(requested) if self.together else requested

    def _losses(self, batch: Batch) -> list[float]:
        """Each real picture's mean loss over the timesteps."""
        with self.session.accelerator.autocast():
            found = [self.task.losses(batch, t) for t in self._times(batch)]
        real = batch.weights > 0
        return torch.stack(found).mean(0)[real].tolist()

    def _times(self, batch: Batch) -> Iterable[Tensor]:
        low, high = self.task.options.timestep_range
        for t in measured_times(low, high):
            yield self.task.objective.times(t, len(batch.weights), batch.weights.device)


def measured_times(low: int, high: int) -> list[float]:
    """TIMES points evenly inside low..high: 200, 400, 600 and 800 of 0..1000."""
    return [low + (high - low) * (i + 1) / (TIMES + 1) for i in range(TIMES)]


def summarize(losses: list[float]) -> Measurement:
    """The mean of independent losses and its standard error."""
    error = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return Measurement(statistics.fmean(losses), error, len(losses))
