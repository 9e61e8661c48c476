"""The training loop: the only one there is.

Everything random comes from (seed, epoch, sample) or (seed, step), learning rates from the step, and a step
number alone says where the run is: resuming from a state is the same as never having stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from library import queued
from library.console import debug, progress_bar
from library.data.batch import Batch
from library.files import remove_leftovers
from library.problems import UserError
from library.training.batches import BatchSource
from library.training.interruption import Interruption
from library.training.job import Job
from library.training.milestones import Milestones
from library.training.output import Output
from library.training.pace.pace import make_pace
from library.training.run import TrainingRun
from library.training.run_plan import plan_run
from library.training.session import Session, versions
from library.training.start.outputs import (
    conclusion,
    lock_on_results,
    make_checkpoints,
    make_log,
    make_standing,
    make_uploads,
)
from library.training.start.preparation import get_ready, make_validation, training_batches
from library.training.stepper import Stepper
from library.training.tasks.task import Task
from library.training.watching.preview import Previews
from library.training.watching.trackers import only_told

if TYPE_CHECKING:
    from tqdm import tqdm

    from library.training.loss_log import LossLog
    from library.training.optimization.ledger import Balance

SECONDS_TO_STOP = 2.0  # for what is worth less than the state
SECONDS_TO_END = 60.0  # for what is worth less than the result


def train(run: TrainingRun, session: Session, task: Task, batches: BatchSource, output: Output) -> Path:
    """Train a task on batches and save it as `output` says. Returns the path of the final result.

    Asked to stop by Ctrl-C or SIGTERM, it saves the state, says how to resume, and ends the program.
    Raises UserError when losses stay no numbers, the state to resume from does not fit, or the device lacks
    memory.
    """
    job = Job(run, session, task, batches, output, plan_run(run.training, session, batches))
    if run.training.dry_run:
        from library.training.dry_run.trial import rehearse

        rehearse(job)
        sys.exit(0)
    with lock_on_results(run.saving, writes=session.is_main):
        try:
            return _train(job)
        except torch.OutOfMemoryError as error:
            if not session.is_main:
                raise
            from library.training.dry_run.out_of_memory import lacks_memory

            raise lacks_memory(job, error) from None


def _train(job: Job) -> Path:
    """The run from its caches to its result."""
    run, session, task = job.run, job.session, job.task
    debug(versions(session.device))
    if session.is_main:
        remove_leftovers(run.saving.output_dir)
    standing = make_standing(job)
    stepper = get_ready(job)
    log = make_log(job, stepper)
    saver = make_checkpoints(job, stepper.learner, standing, log)

    with (
        Interruption() as interruption,
        make_uploads(job, interruption) as saver.uploads,
        saver.settled_after(),
    ):
        milestones = Milestones(
            plan=job.plan,
            session=session,
            validation=make_validation(job, interruption),
            standing=standing,
            saver=saver,
            previews=Previews(run, task, session, log.trackers, interruption),
            log=log,
            as_result=stepper.learner.as_result,
            clock=stepper.clock,
        )
        milestones.at_start()
        _take_steps(job, stepper, milestones, interruption)

        try:
            if session.is_main:
                with stepper.clock.part("saving"):
                    saver.at_end(job.plan.epoch_after(milestones.done), milestones.done)
                queued.tell_of_result()
        finally:
            balance = _conclude(log, stepper, milestones.done, SECONDS_TO_END)
        session.accelerator.wait_for_everyone()
        session.say(conclusion(job, saver.path_at_end))
    if balance is not None:
        with only_told("the table of what was trained"):
            session.say(str(balance))
        balance.raise_if_unmoved()
    return saver.path_at_end


def _take_steps(job: Job, stepper: Stepper, milestones: Milestones, interruption: Interruption) -> None:
    """All steps of the run, with what is due after each."""
    session, log, clock = job.session, milestones.log, stepper.clock
    pace = make_pace(job, clock)
    stepper.start()
    # Batches are closed also when something breaks: their processes would keep the program alive.
    open_batches = closing(training_batches(job))
    with _progress_bar(job) as bar, open_batches as batches, milestones.rescued(lambda: stepper.done):
        for batch in _or_rescue(clock.waiting(batches), milestones):
            position = batch.position
            # Before the batch and not after the step: a signal is obeyed within one batch, and the state is
            # that of the last whole step.
            if session.agrees_to_stop(interruption.requested, position.closes):
                _stop(job, stepper, milestones, interruption)
            stepper.forward_backward(batch)
            if not position.closes:  # accumulation: the step has more batches
                continue

            loss, figures = stepper.optimizer_step(position.step)
            done = position.step + 1
            # The loss stays on the device; the log reads ten at a time, so that no step waits for it.
            log.add(done, position.epoch, loss, figures)
            bar.update()
            if log.average is not None:
                bar.set_postfix(avr_loss=f"{log.average:.4f}", refresh=False)
            pace.after_step()
            milestones.after(done)
        log.read()  # so that a broken run is never saved


def _conclude(log: LossLog, stepper: Stepper, done: int, patience: float) -> Balance | None:
    """Close the trackers with the ledger's balance after `done` steps; None when it could not be computed. It
    comes after the result or state is saved, and raises nothing.
    """
    balance = None
    with only_told("the table of what was trained"):
        balance = stepper.learner.ledger.balance(done)
    with only_told("the time of the run's parts"):
        stepper.clock.conclude()
    with only_told("the log's end"):
        log.conclude(balance, patience)
    return balance


def _progress_bar(job: Job) -> tqdm:
    plan = job.plan
    return progress_bar(
        initial=plan.first_step,
        total=plan.last_step,
        desc="steps",
        disable=not job.session.is_main,
        smoothing=0.05,
    )


def _or_rescue(batches: Iterator[Batch], milestones: Milestones) -> Iterator[Batch]:
    """The batches, until the run is over. When one cannot be made, because a picture is unreadable, the state
    so far is saved before the UserError is raised.
    """
    while not milestones.stopped_early:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except UserError as error:
            milestones.rescue(error, milestones.done)
            raise
        yield batch


def _stop(job: Job, stepper: Stepper, milestones: Milestones, interruption: Interruption) -> None:
    """Save the state after the last whole step and end the program. A step that was under way is taken again
    after a resume.
    """
    session, log, done = job.session, milestones.log, milestones.done
    log.read()  # so that a broken run is never saved
    if session.is_main:
        folder = milestones.saver.on_stop(job.plan.epoch_after(done), done)
        session.say(f"\nstopped after step {done}; go on with --resume {folder}")
    _conclude(log, stepper, done, SECONDS_TO_STOP)
    session.accelerator.wait_for_everyone()
    sys.exit(interruption.exit_code)
