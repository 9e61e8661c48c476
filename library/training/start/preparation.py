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
from torch.nn.parallel import DistributedDataParallel

from library.data.batch import Batch
from library.data.dataset import BatchBuilder, make_loader
from library.data.plan import Course
from library.data.training_data import TrainingData
from library.models.compiling import check_backend, compile_blocks
from library.models.prompt_weights import training_tokenizer
from library.models.saving import Saving
from library.options.training import TrainingOptions
from library.problems import UserError, warn
from library.training.diffusion.noise import NoiseDraw
from library.training.interruption import Interruption
from library.training.job import Job
from library.training.learner import Learner
from library.training.loss_log import LossLog
from library.training.optimization.ema import make_average
from library.training.optimization.guard import Guard
from library.training.optimization.ledger import Ledger
from library.training.optimization.optimizers import class_path, make_optimizer
from library.training.optimization.rounding import Rounded
from library.training.optimization.schedules import make_schedule
from library.training.optimization.self_tuning import advise
from library.training.optimization.update import Update
from library.training.optimization.update_in_backward import in_backward
from library.training.output import Moment
from library.training.position import StateInfo
from library.training.saving.checkpoints import Checkpoints
from library.training.saving.disk_space import check_space
from library.training.saving.settings import settings_of
from library.training.saving.state import load_state, write_state
from library.training.saving.uploads import Uploads
from library.training.session import dtype_of
from library.training.start.caching import Cached, Caches, Identities, fill_caches
from library.training.start.precision import set_precision
from library.training.stepper import Stepper
from library.training.tasks.task import Task
from library.training.watching.report import open_report
from library.training.watching.standing import Standing, standing_at_start
from library.training.watching.tracking import open_trackers
from library.training.watching.validation import Validation


def make_standing(job: Job) -> Standing:
    """How the run stands by its validations. Raises UserError when these have ended it already."""
    run, resumed = job.run, job.session.resumed
    saved, seed = resumed.standing if resumed else {}, run.data.validation_seed or 0
    return standing_at_start(saved, job.data.validation, run.validation, seed)


def get_ready(job: Job) -> tuple[Stepper, Caches]:
    """The model in its place, caches filled, and what takes steps, where the state left off."""
    run, session, task = job.run, job.session, job.task
    identities = Identities.of(task.model, run)  # of the weights as they were read
    set_up_model(job)
    place_model(job)
    # Before caches are filled: then parts with nothing left to do leave the device, and DDP wants all on one.
    stepper = make_stepper(job)
    check_space(run, task)
    announce(job, stepper)
    caches = fill_caches(task.model, run, session, job.data, identities)
    if session.resumed is not None:
        load_state(session.resumed, stepper.learner, class_path(run.optimizer))
    return stepper, caches


def set_up_model(job: Job) -> None:
    """Precision, attention and checkpointing of the model."""
    run, session, task = job.run, job.session, job.task
    model = task.model
    trained = dtype_of(run.training.trained_precision)
    keeps = {"no_half_vae": run.model.no_half_vae, "float8": run.model.float8_parts}
    set_precision(task, session.frozen_dtype, trained=trained, **keeps)
    model.use_attention(run.model.attention)
    if run.training.gradient_checkpointing:
        model.use_gradient_checkpointing(denoiser=True, text_encoders=task.text is not None)


def place_model(job: Job) -> None:
    """Moves the model to the device, in the memory layout that is fastest there, compiled if asked."""
    run, session, task = job.run, job.session, job.task
    task.to(session.device)
    if run.model.torch_compile:
        check_backend(run.model.dynamo_backend, session.device)
        count = compile_blocks(task.model.blocks(), run.model.dynamo_backend)
        session.say(f"{count} blocks of the U-Net are compiled as they are met: the first steps take longer")
    if session.device.type == "cuda":
        for part in (task.model.denoiser, task.model.vae):
            part.to(memory_format=torch.channels_last)


def make_stepper(job: Job) -> Stepper:
    """What takes the steps of a run whose model is in its place."""
    run, session, task = job.run, job.session, job.task
    # Every process has read it, and not every way between processes takes float8.
    frozen = [name for name, parameter in task.named_parameters() if not parameter.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(task, frozen)
    bare = _make_optimizer(job)
    schedule = make_schedule(bare, run.schedule, job.plan.last_step)
    prepared, optimizer = session.accelerator.prepare(
        task,
        bare,
        device_placement=[False, False],  # it is placed, and parts of it leave the device when they are done
    )
    average = make_average(task, run.averaging, session)
    update = _make_update(job, optimizer)
    learner = Learner(task, optimizer, session.accelerator.scaler, average, update.ledger)
    keeping = _saved_activations(run.training, session.device)
    return Stepper(session, prepared, learner, schedule, update, keeping, job.plan.first_step)


def _make_optimizer(job: Job) -> torch.optim.Optimizer:
    """The optimizer of a run over what its task trains. With 16-bit weights it clips gradients by itself."""
    run, groups = job.run, job.task.param_groups()
    if not run.training.trains_in_16_bits:
        return make_optimizer(groups, run.optimizer)
    make = partial(make_optimizer, options=run.optimizer)
    return Rounded(groups, make, seed=job.session.seed, max_grad_norm=run.training.max_grad_norm)


def _saved_activations(options: TrainingOptions, device: torch.device) -> AbstractContextManager[None]:
    """Inside, a forward pass keeps what the backward pass needs where the run wants it. Can be entered again.

    Checkpointed blocks keep no more than their inputs, so with --gradient_checkpointing it is little.
    """
    if not options.cpu_offload_checkpointing:
        return nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda")


def training_batches(job: Job, caches: Caches) -> Generator[Batch, None, None]:
    """The batches of all steps to come. To be closed."""
    run, session, plan = job.run, job.session, job.plan
    workers = min(run.data.max_data_loader_n_workers, os.cpu_count() or 1)
    return make_loader(
        make_builder(job, job.data, caches),
        plan.course.positions(plan.first_step, plan.last_step),
        workers=workers,
        pin_memory=session.device.type == "cuda",
    )


def make_validation(job: Job, caches: Caches, interruption: Interruption) -> Validation:
    run, session, task = job.run, job.session, job.task
    held_out = job.data.validation
    if held_out is None:
        return Validation(run.validation, task, session, None, interruption)
    builder = replace(
        make_builder(job, held_out, caches.validation),
        seed=run.data.validation_seed or 0,
        draw=NoiseDraw(run.data.validation_seed or 0, encodes=not run.caching.caches_latents),
        is_fixed=True,
    )
    count = held_out.batches_per_epoch(session.accelerator.num_processes)
    positions = list(Course(count).positions(0, min(count, run.validation.max_validation_steps or count)))

    def batches() -> Iterator[Batch]:
        return make_loader(builder, positions)

    return Validation(run.validation, task, session, batches, interruption)


def make_builder(job: Job, data: TrainingData, cached: Cached) -> BatchBuilder:
    """What makes batches of the job's data, or of what is held out of it."""
    run, session, task = job.run, job.session, job.task
    return BatchBuilder(
        data,
        training_tokenizer(task.model, run.model.max_token_length, weighted=run.data.weighted_captions),
        NoiseDraw(session.seed, run.objective, encodes=not run.caching.caches_latents),
        session.seed,
        total_steps=job.plan.last_step,
        latents=cached.latents,
        text=cached.text,
        rank=session.accelerator.process_index,
        processes=session.accelerator.num_processes,
    )


def _make_update(job: Job, optimizer: torch.optim.Optimizer) -> Update:
    """What takes the optimizer's steps. Bad ones are counted on from where the state left off. The task's
    weights are as they begin.
    """
    run, session, task = job.run, job.session, job.task
    in_a_row = session.resumed.bad_steps if session.resumed else 0.0
    count = torch.tensor(in_a_row, dtype=torch.float32, device=session.device)
    guard = Guard(session, task, optimizer, run.training.max_bad_steps, count)
    ledger = Ledger(task.components(), job.plan.first_step)
    # Gradients of 16 bits are clipped by the optimizer, in float32.
    max_grad_norm = 0.0 if run.training.trains_in_16_bits else run.training.max_grad_norm
    update = Update(session, task, optimizer, guard, ledger, max_grad_norm)
    return in_backward(update, run.optimizer) if run.optimizer.steps_in_backward else update


def make_log(job: Job, guard: Guard) -> LossLog:
    run, session, plan = job.run, job.session, job.plan
    trackers = open_trackers(run, session, job.output.tracker_name, plan.first_step)
    if session.is_main and not run.logging.no_report:
        trackers.trackers["report"] = open_report(run, job.data, plan)
    return LossLog(session.accelerator, trackers, guard)


def make_uploads(job: Job, interruption: Interruption) -> AbstractContextManager[Uploads | None]:
    """What goes to the hub; None in all processes but the first."""
    if job.run.hub.huggingface_repo_id is None or not job.session.is_main:
        return nullcontext()
    return Uploads(job.run.hub, lambda: interruption.requested)


def make_checkpoints(job: Job, learner: Learner, standing: Standing, log: LossLog) -> Checkpoints:
    """The saver of a run: it knows how results and states are written."""
    run, session, output, plan = job.run, job.session, job.output, job.plan
    started_at, task = time.time(), job.task
    settings = settings_of(run, job.data)

    def save_result(path: Path, epoch: int, step: int) -> None:
        dtype = dtype_of(run.saving.save_precision)
        course, processes = plan.course, session.accelerator.num_processes
        moment = Moment(
            epoch, step, plan.epochs, plan.last_step, course.batches_per_epoch, started_at, processes
        )
        with learner.shown(dtype):
            _require_finite(task, step, dtype)
            metadata = output.describe(moment, dtype) if output.carries_metadata else None
            task.save(path, Saving(output.form, dtype, metadata, epoch, step))

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


def announce(job: Job, stepper: Stepper) -> None:
    """Say what will be trained, on what, and for how long."""
    session, plan, optimizer = job.session, job.plan, stepper.schedule.optimizer
    for line in job.data.summary():
        session.say(line)
    for line in (*job.data.warnings(), *advise(optimizer, job.run)):
        warn(line)
    count = sum(parameter.numel() for parameter in job.task.trained_parameters())
    course, processes = plan.course, session.accelerator.num_processes
    span = (
        f"steps {plan.first_step} to {plan.last_step} ({plan.epochs} epoch{'s' if plan.epochs > 1 else ''})"
    )
    epoch = f"{course.batches_per_epoch} batches and {course.steps_per_epoch} steps an epoch"
    where = f"{processes} process{'es' if processes > 1 else ''} on {session.device.type}"
    session.say(f"training {count:,} parameters with seed {session.seed}: {span}, {epoch}, {where}")
