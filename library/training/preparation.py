"""What the loop needs before its first step: the model in place, loaders, saver and logs."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from library.data.batch import Batch
from library.data.dataset import BatchBuilder, make_loader
from library.data.plan import Course
from library.data.training_data import TrainingData
from library.models.prompt_weights import training_tokenizer
from library.problems import UserError, warn
from library.training.caching import Cached, Caches
from library.training.checkpoints import Checkpoints
from library.training.interruption import Interruption
from library.training.noise import NoiseDraw
from library.training.optimizers import class_path
from library.training.output import Moment, Output
from library.training.precision import set_precision
from library.training.run import TrainingRun
from library.training.run_plan import RunPlan
from library.training.session import Session, dtype_of
from library.training.settings import settings_of
from library.training.standing import Standing
from library.training.state import Learner, StateInfo, write_state
from library.training.task import Task
from library.training.trackers import LossLog, TensorBoardWriter
from library.training.validation import Validation


def place_model(task: Task, run: TrainingRun, session: Session) -> None:
    """Precision, device, memory layout, attention and checkpointing of the model."""
    model = task.model
    keeps = {"no_half_vae": run.model.no_half_vae, "float8": run.model.fp8_base}
    set_precision(task, session.frozen_dtype, **keeps)
    model.use_attention(run.model.attention)
    if run.training.gradient_checkpointing:
        model.use_gradient_checkpointing(denoiser=True, text_encoders=task.text is not None)
    task.to(session.device)
    if session.device.type == "cuda":
        for part in (model.denoiser, model.vae):
            part.to(memory_format=torch.channels_last)


def training_batches(
    run: TrainingRun, session: Session, task: Task, data: TrainingData, plan: RunPlan, caches: Caches
) -> Generator[Batch, None, None]:
    """The batches of all steps to come. To be closed."""
    workers = min(run.data.max_data_loader_n_workers, os.cpu_count() or 1)
    return make_loader(
        _builder(run, session, task, data, plan, caches),
        plan.course.positions(plan.first_step, plan.last_step),
        workers=workers,
        pin_memory=session.device.type == "cuda",
    )


def make_validation(
    run: TrainingRun,
    session: Session,
    task: Task,
    data: TrainingData,
    plan: RunPlan,
    caches: Caches,
    interruption: Interruption,
) -> Validation:
    held_out = data.validation
    if held_out is None:
        return Validation(run.validation, task, session, None, interruption)
    builder = replace(
        _builder(run, session, task, held_out, plan, caches.validation),
        seed=run.data.validation_seed or 0,
        draw=NoiseDraw(run.data.validation_seed or 0, encodes=not run.caching.caches_latents),
        is_fixed=True,
    )
    count = held_out.batches_per_epoch(session.accelerator.num_processes)
    positions = list(Course(count).positions(0, min(count, run.validation.max_validation_steps or count)))

    def batches() -> Iterator[Batch]:
        return make_loader(builder, positions)

    return Validation(run.validation, task, session, batches, interruption)


def _builder(
    run: TrainingRun, session: Session, task: Task, data: TrainingData, plan: RunPlan, cached: Cached
) -> BatchBuilder:
    return BatchBuilder(
        data,
        training_tokenizer(task.model, run.model.max_token_length, weighted=run.data.weighted_captions),
        NoiseDraw(session.seed, run.objective.noise_offset or 0.0, encodes=not run.caching.caches_latents),
        session.seed,
        total_steps=plan.last_step,
        latents=cached.latents,
        text=cached.text,
        rank=session.accelerator.process_index,
        processes=session.accelerator.num_processes,
    )


def make_log(run: TrainingRun, session: Session, output: Output) -> LossLog:
    writer = None
    if run.logging.logging_dir is not None and session.is_main:
        writer = TensorBoardWriter(run.logging, output.tracker_name)
    return LossLog(session.accelerator, writer)


def make_checkpoints(
    run: TrainingRun,
    session: Session,
    learner: Learner,
    data: TrainingData,
    plan: RunPlan,
    output: Output,
    standing: Standing,
) -> Checkpoints:
    """The saver of a run: it knows how results and states are written."""
    started_at, task = time.time(), learner.task
    settings = settings_of(run, data)

    def save_result(path: Path, epoch: int, step: int) -> None:
        dtype = dtype_of(run.saving.save_precision)
        moment = Moment(epoch, step, plan.epochs, plan.last_step, plan.course.batches_per_epoch, started_at)
        with learner.shown():
            _require_finite(task, step, dtype)
            metadata = output.describe(moment, dtype) if output.carries_metadata else None
            task.save(path, form=output.form, dtype=dtype, metadata=metadata, epoch=epoch, step=step)

    def save_state(folder: Path, epoch: int, step: int) -> None:
        _require_finite(task, step)
        info = StateInfo(
            current_epoch=epoch,
            current_step=step,
            seed=session.seed,
            steps_per_epoch=plan.course.steps_per_epoch,
            optimizer=class_path(run.optimizer),
            data=plan.data,
            standing=standing.as_dict(),
            settings=settings,
        )
        write_state(folder, info, learner)

    return Checkpoints(run.saving, output.suffix, plan.epochs, save_result, save_state)


def _require_finite(task: Task, step: int, dtype: torch.dtype | None = None) -> None:
    """Raises UserError when a trained weight is no number, also in the file's dtype: it is never saved."""
    trained = task.trained_tensors().items()
    broken = [key for key, value in trained if not value.to(dtype or value.dtype).isfinite().all()]
    if broken:
        cause = (
            f"{len(broken)} trained tensors are no numbers any more, e.g. {broken[0]}; they were not saved"
        )
        raise UserError.of(f"step {step}", cause, "lower the learning rate and go on from an earlier save")


def announce(
    run: TrainingRun, session: Session, data: TrainingData, plan: RunPlan, optimizer: torch.optim.Optimizer
) -> None:
    """Say what will be trained, on what, and for how long."""
    for line in data.summary():
        session.say(line)
    for line in data.warnings():
        warn(line)
    count = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    course, processes = plan.course, session.accelerator.num_processes
    span = (
        f"steps {plan.first_step} to {plan.last_step} ({plan.epochs} epoch{'s' if plan.epochs > 1 else ''})"
    )
    epoch = f"{course.batches_per_epoch} batches and {course.steps_per_epoch} steps an epoch"
    where = f"{processes} process{'es' if processes > 1 else ''} on {session.device.type}"
    session.say(f"training {count:,} parameters with seed {session.seed}: {span}, {epoch}, {where}")
