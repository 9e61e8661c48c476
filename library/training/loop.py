"""The training loop: the only one there is.

Everything random comes from (seed, epoch, sample) or (seed, step), learning rates from the step, and a step
number alone says where the run is: going on from a state is the same as never having stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from library.console import debug, progress_bar
from library.data.batch import Batch
from library.data.plan import Position
from library.data.training_data import TrainingData
from library.files import remove_leftovers
from library.problems import UserError
from library.randomness import derive_seed
from library.training.caching import Identities, fill_caches
from library.training.checkpoints import Checkpoints
from library.training.disk_space import check_space
from library.training.ema import make_average
from library.training.guard import spoiled
from library.training.interruption import Interruption
from library.training.milestones import Milestones
from library.training.optimizers import class_path
from library.training.output import Output
from library.training.preparation import (
    announce,
    make_checkpoints,
    make_log,
    make_run_optimizer,
    make_update,
    make_uploads,
    make_validation,
    place_model,
    saved_activations,
    training_batches,
)
from library.training.preview import Previews
from library.training.run import TrainingRun
from library.training.run_plan import RunPlan, plan_run
from library.training.schedules import make_schedule
from library.training.self_tuning import used_rates
from library.training.session import Session, versions
from library.training.standing import standing_at_start
from library.training.state import Learner, load_state
from library.training.task import Task
from library.training.trackers import LossLog

if TYPE_CHECKING:
    from tqdm import tqdm

SECONDS_TO_STOP = 2.0  # for what is worth less than the state


def train(run: TrainingRun, session: Session, task: Task, data: TrainingData, output: Output) -> Path:
    """Train a task on data and save it as `output` says. Returns the path of the final result.

    Asked to stop by Ctrl-C or SIGTERM, it saves the state, says how to go on, and ends the program.
    Raises UserError when losses stay no numbers or the state to resume from does not fit.
    """
    if run.training.dry_run:
        from library.training.dry_run import rehearse

        rehearse(run, session, task, data, output)
        sys.exit(0)
    debug(versions(session.device))
    if session.is_main:
        remove_leftovers(run.saving.output_dir)
    plan = plan_run(run.training, session, data)
    saved = session.resumed.standing if session.resumed else {}
    standing = standing_at_start(saved, data.validation, run.validation, run.data.validation_seed or 0)
    identities = Identities.of(task.model, run)
    place_model(task, run, session)
    optimizer = make_run_optimizer(task, run, session)
    check_space(run, task)
    announce(run, session, data, plan, optimizer)
    caches = fill_caches(task.model, run, session, data, identities)
    schedule = make_schedule(optimizer, run.schedule, plan.last_step)
    prepared, optimizer = session.accelerator.prepare(
        task,
        optimizer,
        device_placement=[False, False],  # parts with nothing left to do stay off the device
    )
    average = make_average(task, run.averaging, session)
    update = make_update(run, session, task, optimizer, plan.first_step)
    learner = Learner(task, optimizer, session.accelerator.scaler, average, update.ledger)
    if session.resumed is not None:
        load_state(session.resumed, learner, class_path(run.optimizer))
    log = make_log(run, session, data, plan, output, update.guard)
    saver = make_checkpoints(run, session, learner, data, plan, output, standing, log)

    with Interruption() as interruption, make_uploads(run, session, interruption) as saver.uploads:
        previews = Previews(run, task, session, log, interruption)
        validation = make_validation(run, session, task, data, plan, caches, interruption)
        milestones = Milestones(
            plan, session, validation, standing, saver, previews, log, shown=learner.shown
        )
        milestones.at_start()
        bar = _progress_bar(session, plan)
        prepared.train()
        learner.train()
        keeping = saved_activations(run.training, session.device)
        loss = torch.zeros((), device=session.device)
        # Closed also when something breaks: its processes would keep the program alive.
        batches = closing(training_batches(run, session, task, data, plan, caches))
        with batches as batches, milestones.rescued():
            for batch in _or_rescue(batches, milestones):
                position = batch.position
                if session.agrees_to_stop(interruption.requested, position.closes):
                    _stop(session, saver, log, plan, position.step, interruption)
                schedule.set_rates(position.step)
                loss += backward(session, prepared, batch.to(session.device), keeping)
                update.guard.see(batch)
                if not position.closes:
                    continue

                update(position.step, loss)
                figures = task.after_step()
                if average is not None:
                    average.update()
                done = position.step + 1
                log.add(done, position.epoch, loss, used_rates(schedule.optimizer) | figures)
                loss = torch.zeros_like(loss)
                bar.update()
                if log.average is not None:
                    bar.set_postfix(avr_loss=f"{log.average:.4f}", refresh=False)
                milestones.after(done)

        balance = update.ledger.balance(milestones.done)
        log.conclude(balance)
        bar.close()
        if session.is_main:
            saver.at_end(plan.epoch_after(milestones.done), milestones.done)
        session.accelerator.wait_for_everyone()
        session.say(f"done: {saver.path_at_end}")
    session.say(str(balance))
    balance.raise_if_still()
    return saver.path_at_end


def _progress_bar(session: Session, plan: RunPlan) -> tqdm:
    steps = {"initial": plan.first_step, "total": plan.last_step}
    return progress_bar(**steps, desc="steps", disable=not session.is_main, smoothing=0.05)


def backward(
    session: Session, prepared: torch.nn.Module, batch: Batch, keeping: AbstractContextManager[None]
) -> torch.Tensor:
    """Run one batch of a step forward and backward; its share of the step's loss, on the device.

    keeping: says where activations are kept in between.
    """
    accelerator = session.accelerator
    _seed_modules(session, batch.position)
    share = nullcontext() if batch.position.closes else accelerator.no_sync(prepared)
    with share:
        with keeping:
            loss = prepared(batch) / batch.position.window
        accelerator.backward(spoiled(loss))
    return loss.detach()


def _seed_modules(session: Session, position: Position) -> None:
    """Draws inside modules (dropout) use torch's own generators: seeded anew for each batch, from where the
    run is.
    """
    rank = session.accelerator.process_index
    torch.manual_seed(derive_seed(session.seed, "modules", position.epoch, position.batch, rank))


def _or_rescue(batches: Iterator[Batch], milestones: Milestones) -> Iterator[Batch]:
    """The batches, until the run is over. When one cannot be made, a picture being unreadable, the state so
    far is saved before the UserError is raised.
    """
    done = milestones.plan.first_step
    while not milestones.is_over:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except UserError as error:
            milestones.rescue(error, done)
            raise
        done = batch.position.step
        yield batch


def _stop(
    session: Session, saver: Checkpoints, log: LossLog, plan: RunPlan, done: int, interruption: Interruption
) -> None:
    """Save the state after `done` whole steps and end the program. A step that was under way is done again
    later.
    """
    log.read()  # so that a broken run is never saved
    if session.is_main:
        folder = saver.on_stop(plan.epoch_after(done), done)
        session.say(f"\nstopped after step {done}; go on with --resume {folder}")
    log.close(patience=SECONDS_TO_STOP)
    session.accelerator.wait_for_everyone()
    sys.exit(interruption.exit_code)
