"""What a run writes while it goes: results, states, logs, uploads."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from library import queued
from library.console import activity
from library.files import whole_folder
from library.locks import output_lock
from library.models.saving import Saving
from library.models.weights import save_tensors
from library.options.saving import SavingOptions
from library.training.batches import BatchSource
from library.training.interruption import Interruption
from library.training.job import Job
from library.training.learner import Learner
from library.training.loss_log import LossLog
from library.training.optimization.optimizers import class_path
from library.training.output import Moment, Output
from library.training.position import MOST_JSON, PICTURES, StateInfo
from library.training.saving.checkpoints import Checkpoints, Rest, last_name
from library.training.saving.disk_space import has_room
from library.training.saving.saves import Saves
from library.training.saving.settings import settings_of
from library.training.saving.snapshots import copied, require_finite
from library.training.saving.state import write_state
from library.training.saving.uploads import Uploads
from library.training.session import dtype_of
from library.training.stepper import Stepper
from library.training.watching.preview import preview_folder
from library.training.watching.report import Report, open_report, report_page
from library.training.watching.standing import Standing, standing_at_start
from library.training.watching.trackers import only_told
from library.training.watching.tracking import open_trackers

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS_FOR_STAMPS = 3.0  # a run that was told to stop has to save its state soon


def lock_on_results(options: SavingOptions, *, writes: bool) -> AbstractContextManager[None]:
    """Context manager: inside, no other run writes results of this name. Raises UserError if one does.

    writes: whether this process writes them: of several the first.
    """
    if not writes:
        return nullcontext()
    return output_lock(options.output_dir, last_name(options.output_name))


def make_standing(job: Job) -> Standing:
    """How the run stands by its validations. Raises UserError when these have ended it already."""
    run, resumed = job.run, job.session.resumed
    saved, seed = resumed.standing if resumed else {}, run.data.validation_seed or 0
    return standing_at_start(saved, job.batches.validation, run.validation, seed)


def make_log(job: Job, stepper: Stepper) -> LossLog:
    """The log of a run, with the trackers it asks for and its report."""
    run, session, plan = job.run, job.session, job.plan
    trackers = open_trackers(run, session, job.output.tracker_name, plan.first_step)
    if session.is_main and not run.logging.no_report:
        trackers.trackers["report"] = open_report(run, job.batches, plan, stepper.clock)
    return LossLog(session.accelerator, trackers, stepper.update.guard)


def make_uploads(job: Job, interruption: Interruption) -> AbstractContextManager[Uploads | None]:
    """What goes to the hub; None in all processes but the first."""
    if job.run.hub.huggingface_repo_id is None or not job.session.is_main:
        return nullcontext()
    return Uploads(job.run.hub, lambda: interruption.requested)


def make_checkpoints(job: Job, learner: Learner, standing: Standing, log: LossLog) -> Checkpoints:
    """The saver of a run: it knows how results and states are written."""
    run, session, output, plan = job.run, job.session, job.output, job.plan
    started_at, task = time.time(), job.task
    settings = settings_of(run, job.batches)
    saves = Saves(run.saving.output_dir, session.resumed)

    def save_result(path: Path, epoch: int, step: int) -> Rest:
        dtype = dtype_of(run.saving.save_precision)
        moment = Moment(
            epoch=epoch,
            step=step,
            epochs=plan.epochs,
            last_step=plan.last_step,
            batches_per_epoch=plan.course.batches_per_epoch,
            started_at=started_at,
            processes=session.accelerator.num_processes,
        )
        with activity(f"saving {path}"), learner.as_result(dtype):
            metadata = output.describe(moment) if output.carries_metadata else None
            saving = Saving(output.form, dtype, metadata, epoch, step, output.max_shard_size)
            embeddings = output.embeddings() if output.embeddings else {}
            copies = {name: copied(rows, dtype) for name, rows in embeddings.items()}
            for folder in output.beside(path):
                _write_embeddings(folder, copies, output.suffix, step)
            tensors = task.file_tensors()
            if tensors is not None:
                return partial(_write, path, copied(tensors, dtype), saving, output)
            trained = task.trained_tensors()
            require_finite(trained, step, dtype)
            if output.hashes is not None:
                saving = _with_hashes(saving, copied(trained, dtype), output)
            task.save(path, saving)
        return None

    def save_state(folder: Path, epoch: int, step: int) -> None:
        require_finite(task.trained_tensors(), step)
        info = StateInfo(
            current_epoch=epoch,
            current_step=step,
            seed=session.seed,
            steps_per_epoch=plan.course.steps_per_epoch,
            optimizer=class_path(run.optimizer),
            data=plan.fingerprint,
            standing=standing.as_dict(),
            settings=settings,
            log=log.trackers.place,
            bad_steps=float(log.guard.bad_in_a_row),
            saves=saves.entries(),
            run=queued.RUN.key if queued.RUN else "",
        )
        with activity(f"saving {folder}"):
            write_state(folder, info, learner, _told(log, job.batches))

    saver = Checkpoints(run.saving, output.suffix, plan.epochs, save_result, save_state, saves)
    saver.has_room, saver.beside = partial(has_room, run, task), output.beside
    return saver


def _write(path: Path, tensors: dict[str, Tensor], saving: Saving, output: Output) -> None:
    """Write a result from copies of its tensors, in the file's dtype."""
    require_finite(tensors, saving.step)
    if saving.form != "safetensors":  # torch's format would hold all the memory that a tensor shares
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    save_tensors(path, tensors, dict(_with_hashes(saving, tensors, output).metadata or {}))


def _write_embeddings(folder: Path, files: Mapping[str, dict[str, Tensor]], suffix: str, step: int) -> None:
    """Write embeddings that go with a result: a few kilobytes, for which training waits."""
    with whole_folder(folder) as place:
        for name, rows in files.items():
            require_finite(rows, step)
            save_tensors(place / f"{name}{suffix}", {key: row.clone() for key, row in rows.items()})


def _with_hashes(saving: Saving, tensors: dict[str, Tensor], output: Output) -> Saving:
    """With what the output's metadata says of its tensors, as they are in the file."""
    if saving.metadata is None or output.hashes is None:
        return saving
    metadata = dict(saving.metadata)
    return replace(saving, metadata=metadata | output.hashes(tensors, metadata))


def _told(log: LossLog, batches: BatchSource) -> dict[str, str]:
    """What a state tells of the run: the report's history, if it has one, and what its pictures are."""
    found = {}
    report = log.trackers.trackers.get("report")
    if isinstance(report, Report):
        with only_told("the history in the state"):
            found["history.json"] = report.history.text()
    with only_told("the pictures' times in the state"):
        stamps = json.dumps(batches.stamps(_SECONDS_FOR_STAMPS))
        if len(stamps) <= MOST_JSON:
            found[PICTURES] = stamps
    return found


def conclusion(job: Job, result: Path) -> str:
    """The last line of a run: its result, and where the report and the previews are."""
    run = job.run
    report = report_page(run)
    also = [f"report {report}"] if not run.logging.no_report and report.is_file() else []
    folder = preview_folder(run)
    if run.preview.sample_prompts is not None and folder.is_dir():
        also.append(f"previews in {folder}")
    return f"done: {result}" + (f" ({', '.join(also)})" if also else "")
