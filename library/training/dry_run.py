"""--dry_run: everything that a run does, once and without leaving anything: what it trains, what memory it
takes, a real step and a real save, and what it would write.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from library.data.batch import Batch
from library.data.plan import Position, plan_epoch
from library.data.training_data import TrainingData
from library.files import remove
from library.options.caching import CachingOptions
from library.problems import UserError, warn
from library.training.caching import Caches
from library.training.dry_run_page import Trial, about_files, about_memory, about_run, about_trial, gigabytes
from library.training.ema import make_average
from library.training.loop import backward
from library.training.memory_choices import Outlook, device_memory, look_ahead
from library.training.memory_estimate import nbytes
from library.training.output import Output
from library.training.planned_files import plan_files
from library.training.preparation import (
    make_builder,
    make_checkpoints,
    make_run_optimizer,
    make_update,
    place_model,
    saved_activations,
    set_up_model,
)
from library.training.run import TrainingRun
from library.training.run_plan import RunPlan, plan_run
from library.training.schedules import make_schedule
from library.training.self_tuning import begin_training
from library.training.session import Session
from library.training.standing import Standing
from library.training.state import Learner
from library.training.task import Task
from library.training.trackers import LossLog, Trackers


def rehearse(run: TrainingRun, session: Session, task: Task, data: TrainingData, output: Output) -> None:
    """Do it all once, and print what there is to know. Nothing is left in the output folder or elsewhere, and
    no cache is made: a picture that would be cached is encoded in the step.

    Raises UserError when the step does not work or does not fit into memory.
    """
    plan = plan_run(run.training, session, data)
    for line in data.warnings():
        warn(line)
    set_up_model(task, run, session)
    _say(session, about_run(run, session, task, data, plan))
    batch = _largest_batch(run, session, task, data, plan)
    outlook = look_ahead(task, run, session, batch)
    _say(session, about_memory(outlook, session, batch))
    _require_room(outlook, session)
    trial = _try(run, session, task, data, output, plan, batch)
    _say(session, about_trial(trial, plan))
    if session.is_main:
        files = plan_files(
            run.saving,
            output.suffix,
            plan,
            sizes=(trial.result_size, trial.state_size),
            keeps_best=run.validation.save_best and data.validation is not None,
        )
        _say(session, about_files(files, run, plan))
    session.say("\ndry run: no problems found; nothing was written")


def _say(session: Session, lines: list[str]) -> None:
    session.say("\n".join(lines))


def _largest_batch(
    run: TrainingRun, session: Session, task: Task, data: TrainingData, plan: RunPlan
) -> Batch:
    """The first epoch's batch with the most pixels, its pictures to be encoded."""
    batches = plan_epoch(data, session.seed, 0, session.accelerator.num_processes)
    sizes = [batch.size[0] * batch.size[1] * len(batch.samples) for batch in batches]
    number = sizes.index(max(sizes))
    uncached = dataclasses.replace(run, caching=CachingOptions())
    builder = make_builder(uncached, session, task, data, plan, Caches())
    return builder.build(Position(epoch=0, batch=number, step=0, window=1, closes=True))


def _require_room(outlook: Outlook, session: Session) -> None:
    _, there = device_memory(session.device)
    if outlook.memory is not None and outlook.memory.peak > there:
        cause = f"the run needs about {gigabytes(outlook.memory.peak)}, there are {gigabytes(there)}"
        raise UserError.of(f"memory of the {session.device.type}", cause, "see what would lower it above")


def _try(
    run: TrainingRun,
    session: Session,
    task: Task,
    data: TrainingData,
    output: Output,
    plan: RunPlan,
    batch: Batch,
) -> Trial:
    """One real step and one real save into a temporary folder."""
    try:
        place_model(task, run, session)
        optimizer = make_run_optimizer(task, run, session)
        schedule = make_schedule(optimizer, run.schedule, plan.last_step)
        prepared, optimizer = session.accelerator.prepare(task, optimizer, device_placement=[False, False])
        average = make_average(task, run.averaging, session)
        prepared.train()
        begin_training(optimizer)
        start = time.perf_counter()
        keeping = saved_activations(run.training, session.device)
        update = make_update(run, session, task, optimizer, plan.first_step)
        schedule.set_rates(plan.first_step)
        loss = backward(session, prepared, batch.to(session.device), keeping)
        update.guard.see(batch)
        update(plan.first_step, loss)
        found = float(loss)
        task.after_step()
        seconds = time.perf_counter() - start
    except torch.OutOfMemoryError as error:
        cause = f"a step does not fit: {str(error).splitlines()[0]}"
        raise UserError.of(f"memory of the {session.device.type}", cause, "see what would lower it") from None
    if not math.isfinite(found):
        raise UserError.of(
            "the step", f"its loss is {found}", "lower the learning rate, or use another precision"
        )
    learner = Learner(task, optimizer, session.accelerator.scaler, average, update.ledger)
    log = LossLog(session.accelerator, Trackers(), update.guard)  # none: nothing is written down
    saver = make_checkpoints(run, session, learner, data, plan, output, Standing(), log)
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / f"trial{output.suffix}", time.perf_counter()
        if session.is_main:
            saver.save_result(path, 1, 1)
        saving, size = time.perf_counter() - start, _size(path)
        remove(path)
    session.accelerator.wait_for_everyone()
    return Trial(found, seconds, saving, size, _state_size(learner))


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _state_size(learner: Learner) -> int:
    kept = [*learner.task.trained_tensors().values(), *tree_leaves(learner.optimizer.state_dict())]
    kept += learner.ledger.tensors().values()
    if learner.average is not None:
        kept += learner.average.tensors().values()
    return sum(nbytes(tensor) for tensor in kept if isinstance(tensor, Tensor))
