"""What is due after a step: validation, saves and previews."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from library import queued
from library.console import fail
from library.files import unwritten_is_a_warning
from library.problems import Problem, UserError
from library.training.loss_log import READ_EVERY, LossLog
from library.training.optimization.guard import TooManyBadSteps
from library.training.pace.clock import Clock
from library.training.run_plan import RunPlan
from library.training.saving.checkpoints import Checkpoints
from library.training.session import Session
from library.training.watching.preview import Previews
from library.training.watching.standing import Standing
from library.training.watching.trackers import tell
from library.training.watching.validation import Measurement, Validation
from library.wording import counted


@dataclass
class Milestones:
    """Validates, saves and draws previews when they are due, and saves the state of a run that breaks.

    as_result: context manager; inside it the task's weights are those that users get.
    clock: is told how long each of these takes.
    done: steps done.
    stopped_early: whether validation has ended the run.
    """

    plan: RunPlan
    session: Session
    validation: Validation
    standing: Standing
    saver: Checkpoints
    previews: Previews
    log: LossLog
    as_result: Callable[[], AbstractContextManager[None]]
    clock: Clock
    done: int = field(init=False)
    stopped_early: bool = False

    def __post_init__(self) -> None:
        self.done = self.plan.first_step
        self._kept, self._kept_at = self.done, time.monotonic()

    def at_start(self) -> None:
        """Draw previews that are due at the start, and make up for the validation that was due when the state
        was saved: it comes after saving.
        """
        with self.clock.part("previews"), self.as_result():
            self.previews.at_start(self.plan.first_step)
        epoch, epoch_ended = self.plan.epoch_after(self.done), self.plan.ends_epoch(self.done)
        is_new = self.done > 0 and self.standing.measured_step != self.done
        if is_new and self.validation.is_due(self.done, epoch, epoch_ended):
            self._validate(self.done)

    def after(self, done: int) -> None:
        """What is due after `done` steps."""
        self.done = done
        self.saver.poll()
        epoch, epoch_ended = self.plan.epoch_after(done), self.plan.ends_epoch(done)
        self._save(done, epoch, epoch_ended)  # first: what follows may meet a bad image or run out of memory
        self._keep_going_on_possible(done)
        if self.validation.is_due(done, epoch, epoch_ended):
            self._validate(done)
        if self.previews.is_due(done, epoch, epoch_ended):
            with self.clock.part("previews"), self.as_result():
                self.previews.after_step(done, epoch, epoch_ended)

    def rescue(self, error: UserError, done: int) -> None:
        """Save the state after `done` steps, because `error` ends the run; the error then says where it is,
        or why it could not be saved.
        """
        if not self.session.is_main:  # of several processes only the first shows its problems
            fail("\n".join(map(str, error.problems)))
        elif done > self.plan.first_step:
            error.problems += self._save_state(done)

    @contextmanager
    def rescued(self, done: Callable[[], int | None]) -> Generator[None, None, None]:
        """Context manager; inside it a run that breaks saves its state: after TooManyBadSteps that of the
        last good step, after anything else, such as a device out of memory, that of the last whole step.

        done: returns the steps that the weights have behind them; None while they change.
        """
        try:
            yield
        except TooManyBadSteps as error:
            if self.session.is_main:
                self.rescue(error, self.log.done)
            raise
        except UserError:  # what could be saved was saved where it arose
            raise
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold a step's tensors on the device
            steps = done() or 0
            if self.session.is_main and steps > self.plan.first_step:
                fail("\n".join(map(str, self._save_state(steps))))
            raise

    def _save_state(self, done: int) -> list[Problem]:
        """Save the state. Returns what to say about it."""
        try:
            folder = self.saver.on_stop(self.plan.epoch_after(done), done)
        except UserError as error:
            return error.problems
        except Exception as error:  # a device that failed cannot be read any more
            return [Problem(f"step {done}", f"the state could not be saved ({tell(error)})")]
        return [Problem(f"step {done}", "the state was saved", f"go on with --resume {folder}")]

    def _validate(self, done: int) -> None:
        try:
            with self.clock.part("validation"), self.as_result():
                measured = self.validation.measure()
        except UserError as error:
            self.rescue(error, done)
            raise
        if measured is None:
            return
        self._compare_with_best(measured, done)
        figures = {"loss/validation": measured.loss, "loss/validation_error": measured.standard_error}
        self.log.write(done, figures)

    def _compare_with_best(self, measured: Measurement, done: int) -> None:
        """Keep the best result so far, and end the run when nothing was better for long enough."""
        standing, options = self.standing, self.validation.options
        is_best = standing.take(measured.loss, done)
        kept = "the lowest so far" if is_best else f"the lowest is {standing.lowest}"
        self.session.say(f"\nvalidation after step {done}: loss {measured}, {kept}")
        if is_best and options.save_best:
            self.log.read()  # so that a broken run is never saved
            if self.session.is_main:
                with self.clock.part("saving"), unwritten_is_a_warning():
                    self.saver.best(self.plan.epoch_after(done), done)
        self.stopped_early = standing.ends_run(options)
        if self.stopped_early and done < self.plan.last_step:
            count = counted(standing.since, "validation")
            self.session.say(f"ends after step {done}: {count} without a loss below {standing.lowest}")

    def _save(self, done: int, epoch: int, epoch_ended: bool) -> None:
        saver = self.saver
        saves_step, saves_epoch = saver.saves_at_step(done), epoch_ended and saver.saves_at_epoch(epoch)
        if saves_step or saves_epoch:
            self.log.read()  # so that a broken run is never saved
        if self.session.is_main and saves_step:
            with self.clock.part("saving"), unwritten_is_a_warning():
                saver.after_step(epoch, done)
        if self.session.is_main and saves_epoch:
            with self.clock.part("saving"), unwritten_is_a_warning():
                saver.after_epoch(epoch, done)

    def _keep_going_on_possible(self, done: int) -> None:
        """Save a state now and then, in place of the one before, for a run of a queue that saves none."""
        run, saver, session = queued.RUN, self.saver, self.session
        if run is None or saver.options.save_state or done == self.plan.last_step:
            return
        if session.accelerator.num_processes > 1 and done % READ_EVERY:  # agreeing costs time
            return
        is_due = session.is_main and time.monotonic() - self._kept_at >= run.minutes * 60
        if not session.any_wants(is_due):
            return
        self.log.read()  # so that a broken run is never saved; it needs all processes
        if session.is_main:
            with unwritten_is_a_warning():
                saver.in_place_of(self._kept, self.plan.epoch_after(done), done, key=run.key)
                self._kept = done
            self._kept_at = time.monotonic()
