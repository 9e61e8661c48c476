"""What a step does: forward and backward of its batches, the optimizer's step, and what follows from it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from library.data.batch import Batch
from library.data.plan import Position
from library.randomness import derive_seed
from library.training.learner import Learner
from library.training.optimization.guard import spoiled
from library.training.optimization.schedules import Schedule
from library.training.optimization.self_tuning import used_rates
from library.training.optimization.update import Update
from library.training.session import Session


@dataclass
class Stepper:
    """Takes the steps of a run, one batch at a time.

    prepared: the task as accelerate wrapped it. learner: what a state holds of it. keeping: says where
    activations are kept between forward and backward. done: steps whose weights these are; None while they
    change. loss: of the step so far, on the device.
    """

    session: Session
    prepared: nn.Module
    learner: Learner
    schedule: Schedule
    update: Update
    keeping: AbstractContextManager[None]
    done: int | None
    loss: Tensor = field(init=False)

    def begin(self) -> None:
        """Before the first batch, and after the task was looked at."""
        self.prepared.train()
        self.learner.train()
        self._start_anew()

    def add(self, batch: Batch) -> None:
        """Run one batch of a step forward and backward."""
        position, accelerator = batch.position, self.session.accelerator
        self.schedule.set_rates(position.step)
        self._seed_modules(position)
        share = nullcontext() if position.closes else accelerator.no_sync(self.prepared)
        with share:
            with self.keeping:
                loss = self.prepared(batch.to(self.session.device)) / position.window
            if self.update.is_in_backward:
                self.done = None
            accelerator.backward(spoiled(loss))
        self.loss += loss.detach()
        self.update.guard.see(batch)

    def close(self, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The optimizer's step on what was added; the (0-based) step's loss, on the device, and figures for
        the log.
        """
        loss, learner = self.loss, self.learner
        self.done = None
        self.update(step, loss)
        figures = learner.task.after_step()
        if learner.average is not None:
            learner.average.update()
        self.done = step + 1
        self._start_anew()
        return loss, used_rates(self.schedule.optimizer) | figures

    def _start_anew(self) -> None:
        self.loss = torch.zeros((), device=self.session.device)

    def _seed_modules(self, position: Position) -> None:
        """Draws inside modules (dropout) use torch's own generators: seeded anew for each batch, from where
        the run is.
        """
        rank = self.session.accelerator.process_index
        torch.manual_seed(derive_seed(self.session.seed, "modules", position.epoch, position.batch, rank))
