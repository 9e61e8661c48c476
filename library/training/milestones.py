"""What is due after a step: measuring, saving, drawing previews."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from library.problems import Problem, UserError
from library.training.checkpoints import Checkpoints
from library.training.preview import Previews
from library.training.run_plan import RunPlan
from library.training.session import Session
from library.training.trackers import LossLog
from library.training.validation import Validation


@dataclass
class Milestones:
    """Everything that looks at a run while it goes."""

    plan: RunPlan
    session: Session
    validation: Validation
    saver: Checkpoints
    previews: Previews
    log: LossLog

    def after(self, done: int) -> None:
        """What is due after `done` steps."""
        epoch, epoch_ended = self.plan.epoch_after(done), self.plan.ends_epoch(done)
        self._save(done, epoch, epoch_ended)  # first: what follows may meet a bad image or run out of memory
        if self.validation.is_due(done, epoch, epoch_ended):
            self._measure(done)
        self.previews.after_step(done, epoch, epoch_ended)

    def rescue(self, error: UserError, done: int) -> None:
        """Save the state after `done` steps, for a run that `error` ends; what else there is to say is added
        to it.
        """
        if not self.session.is_main:  # of several processes only the first shows its problems
            print("\n".join(map(str, error.problems)), file=sys.stderr)
        elif done > self.plan.first_step:
            folder = self.saver.on_stop(self.plan.epoch_after(done), done)
            error.problems.append(
                Problem(f"step {done}", "the state was saved", f"go on with --resume {folder}")
            )

    def _measure(self, done: int) -> None:
        try:
            measured = self.validation.measure()
        except UserError as error:
            self.rescue(error, done)
            raise
        if measured is None:
            return
        self.session.say(f"\nvalidation after step {done}: loss {measured}")
        figures = {"loss/validation": measured.loss, "loss/validation_error": measured.standard_error}
        self.log.write(done, figures)

    def _save(self, done: int, epoch: int, epoch_ended: bool) -> None:
        saver = self.saver
        saves_step, saves_epoch = saver.saves_at_step(done), epoch_ended and saver.saves_at_epoch(epoch)
        if saves_step or saves_epoch:
            self.log.read()  # so that a broken run is never saved
        if self.session.is_main and saves_step:
            saver.after_step(epoch, done)
        if self.session.is_main and saves_epoch:
            saver.after_epoch(epoch, done)
