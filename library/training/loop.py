"""The training loop: the only one there is.

Everything random comes from (seed, epoch, sample) or (seed, step), and a step number alone says where the
run is, so
going on from a state is the same as never having stopped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import torch
from tqdm import tqdm

from library.data.cache import LatentCache, cache_latents
from library.data.dataset import Batch, make_loader
from library.data.plan import Position
from library.data.training_data import TrainingData
from library.files import remove_leftovers
from library.problems import warn
from library.randomness import derive_seed
from library.training.checkpoints import Checkpoints
from library.training.interruption import Interruption
from library.training.noise import NoiseDraw
from library.training.optimizers import make_optimizer
from library.training.output import Moment, Output
from library.training.precision import set_precision
from library.training.preview import Previews
from library.training.run import TrainingRun
from library.training.run_plan import RunPlan, plan_run
from library.training.schedules import make_schedule
from library.training.session import Session, dtype_of
from library.training.state import StateInfo, load_state, write_state
from library.training.task import Task
from library.training.trackers import READ_EVERY, LossLog, TensorBoardWriter


def train(run: TrainingRun, session: Session, task: Task, data: TrainingData, output: Output) -> Path:
    """Train a task on data and save it as `output` says. Returns the path of the final result.

    Asked to stop by Ctrl-C or SIGTERM, it saves the state, says how to go on, and ends the program.
    Raises UserError when the loss is no number or the state to resume from does not fit.
    """
    accelerator = session.accelerator
    if session.is_main:
        remove_leftovers(run.saving.output_dir)
    plan = plan_run(run.training, session, data)
    _place(task, run, session)
    latents = _cache(task, run, session, data)
    optimizer = make_optimizer(task.param_groups(), run.optimizer)
    schedule = make_schedule(optimizer, run.optimizer, plan.last_step)
    prepared, optimizer = accelerator.prepare(task, optimizer)
    if session.resumed is not None:
        load_state(Path(session.resumed.folder), task, optimizer, schedule, accelerator)
    saver = _make_checkpoints(run, session, task, plan, output, optimizer, schedule)
    log = _make_log(run, session, output)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    _announce(run, session, data, plan, trained)

    with Interruption() as interruption:
        previews = Previews(run.preview, run.saving, task, session, run.model.clip_skip, interruption)
        previews.at_start(plan.first_step)
        loader = _make_loader(run, session, task, data, plan, latents)
        bar = tqdm(
            initial=plan.first_step,
            total=plan.last_step,
            desc="steps",
            disable=not session.is_main,
            smoothing=0.05,
        )
        prepared.train()
        loss = torch.zeros((), device=session.device)
        for batch in loader:
            position = batch.position
            loss += _backward(accelerator, prepared, batch.to(session.device), session)
            if session.agrees_to_stop(interruption.requested, position, READ_EVERY):
                _stop(session, saver, log, plan, position.step, interruption)
            if not position.closes:
                continue

            if run.training.max_grad_norm:
                accelerator.clip_grad_norm_(trained, run.training.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

            done = position.step + 1
            log.add(done, position.epoch, loss, _rates(optimizer))
            loss = torch.zeros_like(loss)
            bar.update()
            if log.average is not None:
                bar.set_postfix(avr_loss=f"{log.average:.4f}", refresh=False)
            _after_step(done, plan, previews, saver, log, session)

        log.close()
        bar.close()
        path = saver.path_at_end
        if session.is_main:
            saver.at_end(plan.epochs, plan.last_step)
        accelerator.wait_for_everyone()
    session.say(f"done: {path}")
    return path


def _place(task: Task, run: TrainingRun, session: Session) -> None:
    """Precision, device, memory layout, attention and checkpointing of the model."""
    model = task.model
    set_precision(task, session.frozen_dtype, no_half_vae=run.model.no_half_vae)
    model.use_attention(run.model.attention)
    if run.training.gradient_checkpointing:
        model.use_gradient_checkpointing(denoiser=True, text_encoders=task.text is not None)
    task.to(session.device)
    if session.device.type == "cuda":
        for part in (model.denoiser, model.vae):
            part.to(memory_format=torch.channels_last)


def _cache(task: Task, run: TrainingRun, session: Session, data: TrainingData) -> LatentCache | None:
    if not run.data.cache_latents:
        return None
    model = task.model
    parameter = next(model.vae.parameters())

    @torch.no_grad()
    def encode(pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        pixels, noise = pixels.to(parameter.device), noise.to(parameter.device)
        return model.encode_images(pixels, noise).float().cpu()

    return cache_latents(
        data, encode, batch_size=run.data.vae_batch_size, seed=session.seed, progress=session.is_main
    )


def _make_loader(
    run: TrainingRun,
    session: Session,
    task: Task,
    data: TrainingData,
    plan: RunPlan,
    latents: LatentCache | None,
) -> Iterable[Batch]:
    return make_loader(
        data,
        plan.course,
        first_step=plan.first_step,
        last_step=plan.last_step,
        tokenize=task.model.tokenizer(run.model.max_token_length or 75),
        draw=NoiseDraw(session.seed, run.objective.noise_offset or 0.0),
        latents=latents,
        seed=session.seed,
        rank=session.accelerator.process_index,
        processes=session.accelerator.num_processes,
        workers=min(run.data.max_data_loader_n_workers, os.cpu_count() or 1),
        pin_memory=session.device.type == "cuda",
    )


def _make_log(run: TrainingRun, session: Session, output: Output) -> LossLog:
    writer = None
    if run.logging.logging_dir is not None and session.is_main:
        writer = TensorBoardWriter(run.logging, output.tracker_name)
    return LossLog(session.accelerator, writer)


def _make_checkpoints(
    run: TrainingRun, session: Session, task: Task, plan: RunPlan, output: Output, optimizer, schedule
) -> Checkpoints:
    started_at = time.time()

    def save_result(path: Path, epoch: int, step: int) -> None:
        moment = Moment(epoch, step, plan.epochs, plan.last_step, plan.course.batches_per_epoch, started_at)
        dtype = dtype_of(run.saving.save_precision)
        task.save(
            path, form=output.form, dtype=dtype, metadata=output.describe(moment), epoch=epoch, step=step
        )

    def save_state(folder: Path, epoch: int, step: int) -> None:
        info = StateInfo(
            current_epoch=epoch,
            current_step=step,
            seed=session.seed,
            steps_per_epoch=plan.course.steps_per_epoch,
            data=plan.data,
        )
        write_state(folder, info, task, optimizer, schedule, session.accelerator)

    return Checkpoints(run.saving, output.suffix, plan.epochs, save_result, save_state)


def _announce(run: TrainingRun, session: Session, data: TrainingData, plan: RunPlan, trained: list) -> None:
    for line in data.summary():
        session.say(line)
    for line in data.warnings():
        warn(line)
    count = sum(parameter.numel() for parameter in trained)
    course, processes = plan.course, session.accelerator.num_processes
    span = (
        f"steps {plan.first_step} to {plan.last_step} ({plan.epochs} epoch{'s' if plan.epochs > 1 else ''})"
    )
    epoch = f"{course.batches_per_epoch} batches and {course.steps_per_epoch} steps an epoch"
    where = f"{processes} process{'es' if processes > 1 else ''} on {session.device.type}"
    session.say(f"training {count:,} parameters with seed {session.seed}: {span}, {epoch}, {where}")


def _backward(accelerator, prepared: torch.nn.Module, batch: Batch, session: Session) -> torch.Tensor:
    """Run one batch of a step forward and backward; its share of the step's loss, on the device."""
    _seed_modules(session, batch.position)
    share = accelerator.no_sync(prepared) if not batch.position.closes else nullcontext()
    with share:
        loss = prepared(batch) / batch.position.window
        accelerator.backward(loss)
    return loss.detach()


def _seed_modules(session: Session, position: Position) -> None:
    """Draws inside modules (dropout) use torch's own generators: seeded anew for each batch, from where the
    run is.
    """
    rank = session.accelerator.process_index
    torch.manual_seed(derive_seed(session.seed, "modules", position.epoch, position.batch, rank))


def _rates(optimizer) -> dict[str, float]:
    return {f"lr/{group['name']}": float(group["lr"]) for group in optimizer.param_groups}


def _after_step(
    done: int, plan: RunPlan, previews: Previews, saver: Checkpoints, log: LossLog, session: Session
) -> None:
    """Previews and saves that are due after `done` steps."""
    epoch, epoch_ended = plan.epoch_after(done), plan.ends_epoch(done)
    saves_step, saves_epoch = saver.saves_at_step(done), epoch_ended and saver.saves_at_epoch(epoch)
    if saves_step or saves_epoch:
        log.read()  # so that a broken run is never saved
    previews.after_step(done, epoch, epoch_ended)
    if session.is_main and saves_step:
        saver.after_step(epoch, done)
    if session.is_main and saves_epoch:
        saver.after_epoch(epoch, done)


def _stop(
    session: Session, saver: Checkpoints, log: LossLog, plan: RunPlan, done: int, interruption: Interruption
) -> None:
    """Save the state after `done` whole steps and end the program. A step that was under way is done again
    later.
    """
    log.close()
    if session.is_main:
        folder = saver.on_stop(plan.epoch_after(done), done)
        session.say(f"\nstopped after step {done}; go on with --resume {folder}")
    session.accelerator.wait_for_everyone()
    sys.exit(interruption.exit_code)
