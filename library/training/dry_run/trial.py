"""--dry_run: does everything that a run does, once, and leaves nothing behind: what is trained, how much
memory it takes, a real step, a real save, and which files would be written.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from library.data.batch import Batch
from library.faults import reason_of
from library.files import remove
from library.problems import UserError, warn
from library.training.dry_run.memory_choices import MemoryForecast, forecast_memory
from library.training.dry_run.page import Trial, about_files, about_memory, about_run, about_trial, gigabytes
from library.training.dry_run.planned_files import plan_files
from library.training.dry_run.proposals import room_in
from library.training.dry_run.proposing import about_offer, offer
from library.training.job import Job
from library.training.learner import Learner
from library.training.loss_log import LossLog
from library.training.memory.forecast import device_memory, largest_batch
from library.training.session import Session
from library.training.start.model_setup import place_model, set_up_model
from library.training.start.outputs import make_checkpoints
from library.training.start.stepping import make_stepper
from library.training.watching.standing import Standing
from library.training.watching.trackers import Trackers


def rehearse(job: Job) -> None:
    """Try everything once, and print the findings. Nothing is left in the output folder or elsewhere, and no
    cache is made: a picture that would be cached is encoded in the step.

    Raises UserError when the step fails or does not fit into memory.
    """
    run, session, task = job.run, job.session, job.task
    for line in job.batches.warnings():
        warn(line)
    set_up_model(job)
    _say(session, about_run(job))
    batch = largest_batch(job)
    # First the estimate: it takes no memory, and shows what would help if the step does not fit.
    outlook = forecast_memory(task, run, session, batch)
    _say(session, about_memory(outlook, session, batch))
    if run.training.assume_vram is not None or not _fits(outlook, session):
        _propose(job, batch)
    _require_memory(outlook, session)
    trial = _try_step_and_save(job, batch)
    _say(session, about_trial(trial, job.plan))
    if session.is_main:
        files = plan_files(
            run.saving,
            job.output.suffix,
            job.plan,
            sizes=(trial.result_size, trial.state_size),
            keeps_best=run.validation.save_best and job.batches.validation is not None,
        )
        _say(session, about_files(files, run, job.plan))
    session.say("\ndry run: no problems found; nothing was written")


def _say(session: Session, lines: list[str]) -> None:
    session.say("\n".join(lines))


def _fits(outlook: MemoryForecast, session: Session) -> bool:
    card = device_memory(session.device)[1]
    return outlook.memory is None or outlook.memory.peak <= room_in(card)


def _propose(job: Job, batch: Batch) -> None:
    try:
        found = offer(job, batch)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        warn(f"nothing can be proposed for this run ({reason_of(error)})")
        return
    _say(job.session, about_offer(found))


def _require_memory(outlook: MemoryForecast, session: Session) -> None:
    _, there = device_memory(session.device)
    if outlook.memory is not None and outlook.memory.peak > there:
        cause = f"the run needs about {gigabytes(outlook.memory.peak)}, there are {gigabytes(there)}"
        raise UserError.of(f"memory of the {session.device.type}", cause, "see what would lower it above")


def _try_step_and_save(job: Job, batch: Batch) -> Trial:
    """Take one real step, and make one real save into a temporary folder."""
    session, output = job.session, job.output
    try:
        stepper = make_stepper(job, place_model(job))
        stepper.start()
        start = time.perf_counter()
        stepper.forward_backward(batch)
        loss, _ = stepper.optimizer_step(job.plan.first_step)
        found = float(loss)  # waits for the device, so that its time counts
        seconds = time.perf_counter() - start
    except torch.OutOfMemoryError as error:
        cause = f"a step does not fit: {str(error).splitlines()[0]}"
        raise UserError.of(f"memory of the {session.device.type}", cause, "see what would lower it") from None
    if not math.isfinite(found):
        raise UserError.of(
            "the step", f"its loss is {found}", "lower the learning rate, or use another precision"
        )
    log = LossLog(session.accelerator, Trackers(), stepper.update.guard)  # no trackers: nothing is logged
    saver = make_checkpoints(job, stepper.learner, Standing(), log)
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / f"trial{output.suffix}", time.perf_counter()
        with stepper.learner.saving() as writes:
            if writes:
                saver.save_now(path, 1, 1)
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
