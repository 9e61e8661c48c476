"""One step of training: forward and backward of its batches, then the optimizer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from library.data.batch import Batch
from library.data.plan import Position
from library.models.compiling import GraphSteps
from library.randomness import derive_seed
from library.training.learner import Learner
from library.training.optimization.guard import with_nan_gradients
from library.training.optimization.scheduler_classes import ClassSchedule
from library.training.optimization.schedules import Schedule
from library.training.optimization.self_tuning import rates_for_logs
from library.training.optimization.update import Update
from library.training.pace.clock import Clock
from library.training.session import Session

Figures = dict[str, float | Tensor]  # by the name in logs; tensors are scalars on the device


@dataclass
class Stepper:
    """Takes the steps of a run.

    prepared: the task as accelerate wrapped it.
    learner: the task, its optimizer and averages: what a state holds.
    update: clips gradients and takes the optimizer's step.
    saved_activations: context manager for the forward pass; offloads what the backward pass needs to the
        CPU, or does nothing.
    clock: is told when the parts of a step begin and end.
    done: steps whose weights these are; None while they change.
    graph_steps: tells CUDA graphs of compiled blocks where steps begin; None without them.
    loss: of the step so far, a scalar on the device.
    """

    session: Session
    prepared: nn.Module
    learner: Learner
    schedule: Schedule | ClassSchedule
    update: Update
    saved_activations: AbstractContextManager[None]
    clock: Clock
    done: int | None
    graph_steps: GraphSteps | None = None
    loss: Tensor = field(init=False)

    def start(self) -> None:
        """Get ready for the first batch."""
        self.prepared.train()
        self.learner.train()
        self._reset_loss()

    def forward_backward(self, batch: Batch) -> None:
        """Add one batch's gradients to those of the step. batch: on the CPU."""
        position, accelerator = batch.position, self.session.accelerator
        self.clock.begin((batch.noise.shape, position.closes), batch.noise.numel())
        # Rates depend on the step alone. They are set before the backward pass, which may step already.
        self.schedule.set_rates(position.step)
        self._seed_modules(position)
        # Processes exchange gradients once a step, with its last batch.
        exchange = nullcontext() if position.closes else accelerator.no_sync(self.prepared)
        with exchange, self._casts():
            with self.saved_activations:
                # A step of n batches is one large batch: the mean of their losses.
                loss = self.prepared(batch.to(self.session.device)) / position.window
            self.clock.end("forward")
            if self.update.is_in_backward:
                self.done = None
            # A broken loss breaks all gradients, so that their norm alone tells, equally in all processes.
            accelerator.backward(with_nan_gradients(loss))
            self.clock.end("backward")
        self.loss += loss.detach()
        self.update.guard.remember(batch)

    def optimizer_step(self, step: int) -> tuple[Tensor, Figures]:
        """Change the weights by the gradients that were gathered for the (0-based) step.

        Returns its loss, a scalar on the device, and figures for logs.
        """
        loss, learner, update = self.loss, self.learner, self.update
        self.done = None
        # Clipping by the norm of all gradients together keeps one odd batch from throwing the weights away.
        norm = update.clip_gradients(step)
        has_text = learner.task.needs_text_gradients(step)
        learner.ledger.record_step(learner.optimizer.param_groups, norm, trains_text=has_text)
        # The guard skips it when the gradients are no numbers: weights and optimizer stay what they were.
        update.take_step(loss, norm)
        # Max-norm regularization and the like look at the weights after the step ...
        figures = learner.task.after_step()
        # ... and the moving average takes in what results use.
        if learner.average is not None:
            learner.average.update()
        if self.graph_steps is not None:
            self.graph_steps.end()
        self.clock.end("optimizer")
        self.done = step + 1
        self._reset_loss()
        return loss, rates_for_logs(self.schedule.optimizer) | figures

    def _casts(self) -> AbstractContextManager[None]:
        """Weights cast together get their gradients together; a step in the backward pass wants them one by
        one, to free them.
        """
        if self.update.is_in_backward:
            return nullcontext()
        return self.learner.task.computing_in(self.session.frozen_dtype)

    def _reset_loss(self) -> None:
        self.loss = torch.zeros((), device=self.session.device)

    def _seed_modules(self, position: Position) -> None:
        """Draws inside modules (dropout) use torch's own generators: they are seeded for each batch by its
        position, so that a resumed run draws what an uninterrupted one does.
        """
        rank = self.session.accelerator.process_index
        torch.manual_seed(derive_seed(self.session.seed, "modules", position.epoch, position.batch, rank))
