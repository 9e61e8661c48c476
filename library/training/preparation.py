"""What the loop needs before its first step: the model in place, loaders, saver and logs."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from library.data.batch import Batch
from library.data.dataset import BatchBuilder, make_loader
from library.data.plan import Course
from library.data.training_data import TrainingData
from library.models.compiling import check_backend, compile_blocks
from library.models.prompt_weights import training_tokenizer
from library.options.training import TrainingOptions
from library.problems import UserError, warn
from library.training.caching import Cached, Caches
from library.training.checkpoints import Checkpoints
from library.training.guard import Guard
from library.training.interruption import Interruption
from library.training.ledger import Ledger
from library.training.noise import NoiseDraw
from library.training.optimizers import class_path, make_optimizer
from library.training.output import Moment, Output
from library.training.precision import set_precision
from library.training.report import open_report
from library.training.rounding import Rounded
from library.training.run import TrainingRun
from library.training.run_plan import RunPlan
from library.training.self_tuning import advise
from library.training.session import Session, dtype_of
from library.training.settings import settings_of
from library.training.standing import Standing
from library.training.state import Learner, StateInfo, write_state
from library.training.task import Task
from library.training.trackers import LossLog
from library.training.tracking import open_trackers
from library.training.update import Update
from library.training.update_in_backward import in_backward
from library.training.uploads import Uploads
from library.training.validation import Validation


def place_model(task: Task, run: TrainingRun, session: Session) -> None:
    """Precision, device, memory layout, attention and checkpointing of the model."""
    set_up_model(task, run, session)
    task.to(session.device)
    if run.model.torch_compile:
        check_backend(run.model.dynamo_backend, session.device)
        count = compile_blocks(task.model.denoiser, run.model.dynamo_backend)
        session.say(f"{count} blocks of the U-Net are compiled as they are met: the first steps take longer")
    if session.device.type == "cuda":
        for part in (task.model.denoiser, task.model.vae):
            part.to(memory_format=torch.channels_last)


def set_up_model(task: Task, run: TrainingRun, session: Session) -> None:
    """All of it but for the device."""
    model = task.model
    trained = dtype_of(run.training.trained_precision)
    keeps = {"no_half_vae": run.model.no_half_vae, "float8": run.model.float8_parts}
    set_precision(task, session.frozen_dtype, trained=trained, **keeps)
    model.use_attention(run.model.attention)
    if run.training.gradient_checkpointing:
        model.use_gradient_checkpointing(denoiser=True, text_encoders=task.text is not None)


def make_run_optimizer(task: Task, run: TrainingRun, session: Session) -> torch.optim.Optimizer:
    """The optimizer of a run over what its task trains. With 16-bit weights it clips gradients by itself."""
    groups = task.param_groups()
    if not run.training.trains_in_16_bits:
        return make_optimizer(groups, run.optimizer)
    make = partial(make_optimizer, options=run.optimizer)
    return Rounded(groups, make, seed=session.seed, max_grad_norm=run.training.max_grad_norm)


def saved_activations(options: TrainingOptions, device: torch.device) -> AbstractContextManager[None]:
    """Inside, a forward pass keeps what the backward pass needs where the run wants it. Can be entered again.

    Checkpointed blocks keep no more than their inputs, so with --gradient_checkpointing it is little.
    """
    if not options.cpu_offload_checkpointing:
        return nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda")


def training_batches(
    run: TrainingRun, session: Session, task: Task, data: TrainingData, plan: RunPlan, caches: Caches
) -> Generator[Batch, None, None]:
    """The batches of all steps to come. To be closed."""
    workers = min(run.data.max_data_loader_n_workers, os.cpu_count() or 1)
    return make_loader(
        make_builder(run, session, task, data, plan, caches),
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
        make_builder(run, session, task, held_out, plan, caches.validation),
        seed=run.data.validation_seed or 0,
        draw=NoiseDraw(run.data.validation_seed or 0, encodes=not run.caching.caches_latents),
        is_fixed=True,
    )
    count = held_out.batches_per_epoch(session.accelerator.num_processes)
    positions = list(Course(count).positions(0, min(count, run.validation.max_validation_steps or count)))

    def batches() -> Iterator[Batch]:
        return make_loader(builder, positions)

    return Validation(run.validation, task, session, batches, interruption)


def make_builder(
    run: TrainingRun, session: Session, task: Task, data: TrainingData, plan: RunPlan, cached: Cached
) -> BatchBuilder:
    return BatchBuilder(
        data,
        training_tokenizer(task.model, run.model.max_token_length, weighted=run.data.weighted_captions),
        NoiseDraw(session.seed, run.objective, encodes=not run.caching.caches_latents),
        session.seed,
        total_steps=plan.last_step,
        latents=cached.latents,
        text=cached.text,
        rank=session.accelerator.process_index,
        processes=session.accelerator.num_processes,
    )


def make_update(
    run: TrainingRun, session: Session, task: Task, optimizer: torch.optim.Optimizer, first_step: int
) -> Update:
    """What takes the optimizer's steps. Bad ones are counted on from where the state left off.

    first_step: steps done. The task's weights are as they begin.
    """
    in_a_row = session.resumed.bad_steps if session.resumed else 0.0
    count = torch.tensor(in_a_row, dtype=torch.float32, device=session.device)
    guard = Guard(session, task, optimizer, run.training.max_bad_steps, count)
    ledger = Ledger(task.components(), first_step)
    # Gradients of 16 bits are clipped by the optimizer, in float32.
    max_grad_norm = 0.0 if run.training.trains_in_16_bits else run.training.max_grad_norm
    update = Update(session, task, optimizer, guard, ledger, max_grad_norm)
    return in_backward(update, run.optimizer) if run.optimizer.steps_in_backward else update


def make_log(
    run: TrainingRun,
    session: Session,
    data: TrainingData,
    plan: RunPlan,
    output: Output,
    guard: Guard,
) -> LossLog:
    trackers = open_trackers(run, session, output.tracker_name, plan.first_step)
    if session.is_main and not run.logging.no_report:
        trackers.trackers["report"] = open_report(run, data, plan)
    return LossLog(session.accelerator, trackers, guard)


def make_uploads(
    run: TrainingRun, session: Session, interruption: Interruption
) -> AbstractContextManager[Uploads | None]:
    """What goes to the hub; None in all processes but the first."""
    if run.hub.huggingface_repo_id is None or not session.is_main:
        return nullcontext()
    return Uploads(run.hub, lambda: interruption.requested)


def make_checkpoints(
    run: TrainingRun,
    session: Session,
    learner: Learner,
    data: TrainingData,
    plan: RunPlan,
    output: Output,
    standing: Standing,
    log: LossLog,
) -> Checkpoints:
    """The saver of a run: it knows how results and states are written."""
    started_at, task = time.time(), learner.task
    settings = settings_of(run, data)

    def save_result(path: Path, epoch: int, step: int) -> None:
        dtype = dtype_of(run.saving.save_precision)
        course, processes = plan.course, session.accelerator.num_processes
        moment = Moment(
            epoch, step, plan.epochs, plan.last_step, course.batches_per_epoch, started_at, processes
        )
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
            log=log.trackers.place,
            bad_steps=float(log.guard.in_a_row),
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
    for line in (*data.warnings(), *advise(optimizer, run)):
        warn(line)
    count = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    course, processes = plan.course, session.accelerator.num_processes
    span = (
        f"steps {plan.first_step} to {plan.last_step} ({plan.epochs} epoch{'s' if plan.epochs > 1 else ''})"
    )
    epoch = f"{course.batches_per_epoch} batches and {course.steps_per_epoch} steps an epoch"
    where = f"{processes} process{'es' if processes > 1 else ''} on {session.device.type}"
    session.say(f"training {count:,} parameters with seed {session.seed}: {span}, {epoch}, {where}")
