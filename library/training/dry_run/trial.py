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
from library.data.summary import warning_lines
from library.data.training_data import TrainingData
from library.files import remove
from library.options.caching import CachingOptions
from library.problems import UserError, warn
from library.training.dry_run.memory_choices import Outlook, device_memory, look_ahead
from library.training.dry_run.page import Trial, about_files, about_memory, about_run, about_trial, gigabytes
from library.training.dry_run.planned_files import plan_files
from library.training.job import Job
from library.training.learner import Learner
from library.training.loss_log import LossLog
from library.training.output import Output
from library.training.run import TrainingRun
from library.training.run_plan import plan_run
from library.training.session import Session
from library.training.start.caching import Caches
from library.training.start.preparation import (
    make_builder,
    make_checkpoints,
    make_stepper,
    place_model,
    set_up_model,
)
from library.training.tasks.task import Task
from library.training.watching.standing import Standing
from library.training.watching.trackers import Trackers


def rehearse(run: TrainingRun, session: Session, task: Task, data: TrainingData, output: Output) -> None:
    """Do it all once, and print what there is to know. Nothing is left in the output folder or elsewhere, and
    no cache is made: a picture that would be cached is encoded in the step.

    Raises UserError when the step does not work or does not fit into memory.
    """
    job = Job(run, session, task, data, output, plan_run(run.training, session, data))
    for line in warning_lines(data):
        warn(line)
    set_up_model(job)
    _say(session, about_run(job))
    batch = _largest_batch(job)
    outlook = look_ahead(task, run, session, batch)
    _say(session, about_memory(outlook, session, batch))
    _require_room(outlook, session)
    trial = _try(job, batch)
    _say(session, about_trial(trial, job.plan))
    if session.is_main:
        files = plan_files(
            run.saving,
            output.suffix,
            job.plan,
            sizes=(trial.result_size, trial.state_size),
            keeps_best=run.validation.save_best and data.validation is not None,
        )
        _say(session, about_files(files, run, job.plan))
    session.say("\ndry run: no problems found; nothing was written")


def _say(session: Session, lines: list[str]) -> None:
    session.say("\n".join(lines))


def _largest_batch(job: Job) -> Batch:
    """The first epoch's batch with the most pixels, its pictures to be encoded."""
    batches = plan_epoch(job.data, job.session.seed, 0, job.session.accelerator.num_processes)
    sizes = [batch.size[0] * batch.size[1] * len(batch.samples) for batch in batches]
    number = sizes.index(max(sizes))
    uncached = dataclasses.replace(job, run=dataclasses.replace(job.run, caching=CachingOptions()))
    builder = make_builder(uncached, job.data, Caches())
    return builder.build(Position(epoch=0, batch=number, step=0, window=1, closes=True))


def _require_room(outlook: Outlook, session: Session) -> None:
    _, there = device_memory(session.device)
    if outlook.memory is not None and outlook.memory.peak > there:
        cause = f"the run needs about {gigabytes(outlook.memory.peak)}, there are {gigabytes(there)}"
        raise UserError.of(f"memory of the {session.device.type}", cause, "see what would lower it above")


def _try(job: Job, batch: Batch) -> Trial:
    """One real step and one real save into a temporary folder."""
    session, output = job.session, job.output
    try:
        place_model(job)
        stepper = make_stepper(job)
        stepper.begin()
        start = time.perf_counter()
        stepper.add(batch)
        loss, _ = stepper.close(job.plan.first_step)
        found = float(loss)
        seconds = time.perf_counter() - start
    except torch.OutOfMemoryError as error:
        cause = f"a step does not fit: {str(error).splitlines()[0]}"
        raise UserError.of(f"memory of the {session.device.type}", cause, "see what would lower it") from None
    if not math.isfinite(found):
        raise UserError.of(
            "the step", f"its loss is {found}", "lower the learning rate, or use another precision"
        )
    log = LossLog(session.accelerator, Trackers(), stepper.update.guard)  # none: nothing is written down
    saver = make_checkpoints(job, stepper.learner, Standing(), log)
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / f"trial{output.suffix}", time.perf_counter()
        if session.is_main:
            saver.save_result(path, 1, 1)
        saving, size = time.perf_counter() - start, _size(path)
        remove(path)
    session.accelerator.wait_for_everyone()
    return Trial(found, seconds, saving, size, _state_size(stepper.learner))


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _state_size(learner: Learner) -> int:
    kept = [*learner.task.trained_tensors().values(), *tree_leaves(learner.optimizer.state_dict())]
    kept += learner.ledger.tensors().values()
    if learner.average is not None:
        kept += learner.average.tensors().values()
    return sum(tensor.nbytes for tensor in kept if isinstance(tensor, Tensor))
