"""How much memory a run needs on its device, and which options would lower it by how much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from library.data.batch import Batch
from library.models.base import Model
from library.models.float8 import STORED
from library.models.swapping.plan import SwapPlan, own_type, plan_swap
from library.options.optimizer import OptimizerOptions
from library.problems import UserError
from library.training.memory.estimate import Memory, state_per_weight
from library.training.memory.forecast import (
    gradient_parts,
    offloaded_bytes,
    offloaded_vae,
    run_memory,
)
from library.training.run import TrainingRun
from library.training.session import Session
from library.training.start.precision import frozen_layers
from library.training.tasks.task import Task

MIN_SAVING = 0.01  # of the peak: an option that saves less is not worth a line


@dataclass(frozen=True)
class MemoryForecast:
    """How much memory a run needs, and what would lower it.

    memory: of the run as it is; None when it cannot be estimated.
    choices: options that would lower the peak, each with the peak it leaves; the most helpful first.
    reason: why it cannot be estimated.
    """

    memory: Memory | None
    choices: tuple[tuple[str, int], ...] = ()
    reason: str = ""


def forecast_memory(task: Task, run: TrainingRun, session: Session, batch: Batch) -> MemoryForecast:
    """The outlook of a run whose largest batch is `batch`. The task stays unchanged."""
    try:
        memory = run_memory(task, run, session, batch)
        found = list(_choices(memory, task, run, session, batch))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return MemoryForecast(None, reason=str(error).splitlines()[0])
    lower = [(text, peak) for text, peak in found if memory.peak - peak > MIN_SAVING * memory.peak]
    return MemoryForecast(memory, tuple(sorted(lower, key=lambda choice: choice[1])))


def _choices(
    memory: Memory, task: Task, run: TrainingRun, session: Session, batch: Batch
) -> Iterator[tuple[str, int]]:
    if not run.caching.caches_latents:
        away = offloaded_vae(task, run, session)
        yield "--cache_latents", replace(memory, encoding=0, weights=memory.weights - away).peak
    if not run.caching.caches_text and not run.trains_text:
        away = offloaded_bytes(task.model.text_encoders, run, session)
        text = "--cache_text_encoder_outputs (for captions that never change)"
        yield text, replace(memory, weights=memory.weights - away).peak
    if not (run.training.gradient_checkpointing or run.training.blocks_to_swap):
        with _checkpointing(task, run):
            found = run_memory(task, run, session, batch)
        yield "--gradient_checkpointing", found.peak
    if _could_swap(task, run, session):
        blocks = task.model.transformer_blocks()
        with _checkpointing(task, run), _swapping(task.model, plan_swap(blocks, len(blocks))):
            found = run_memory(task, run, session, batch)
        yield f"--blocks_to_swap {len(blocks)}", found.peak
    if _could_step_in_backward(run, session):
        yield (
            "--fused_backward_pass",
            replace(memory, gradients=memory.gradients // gradient_parts(task, None)).peak,
        )
    if run.training.mixed_precision == "no" and not run.training.trains_in_16_bits:
        found = run_memory(task, run, session, batch, frozen=torch.bfloat16)
        yield "--mixed_precision bf16", found.peak
    if not run.model.float8_parts and (saved := _float8_savings(task)):
        yield "--fp8_base", replace(memory, weights=memory.weights - saved).peak
    smaller = _with_8bit_adam(memory, task, session) if memory.optimizer > MIN_SAVING * memory.peak else None
    if smaller is not None:
        yield "--optimizer_type AdamW8bit", smaller.peak
    if (count := len(batch.weights)) > 1:
        one = replace(memory, activations=memory.activations // count, encoding=memory.encoding // count)
        yield f"--train_batch_size 1 --gradient_accumulation_steps {count}", one.peak


def _could_step_in_backward(run: TrainingRun, session: Session) -> bool:
    training = run.training
    is_free = training.gradient_accumulation_steps == 1 and training.mixed_precision != "fp16"
    finds_rate = run.optimizer.optimizer_name.lower().startswith(("dadapt", "prodigy"))
    is_alone = session.accelerator.num_processes == 1
    return not run.optimizer.steps_in_backward and is_free and is_alone and not finds_rate


def _could_swap(task: Task, run: TrainingRun, session: Session) -> bool:
    is_frozen = task.model.denoiser_part not in task.trained_parts()
    may = is_frozen or run.optimizer.fused_backward_pass
    return may and not run.training.blocks_to_swap and session.device.type == "cuda"


@contextmanager
def _checkpointing(task: Task, run: TrainingRun) -> Iterator[None]:
    """Context manager; inside it the model recomputes activations."""
    task.use_gradient_checkpointing(True)
    try:
        yield
    finally:
        is_on = run.training.gradient_checkpointing or bool(run.training.blocks_to_swap)
        task.use_gradient_checkpointing(is_on)


@contextmanager
def _swapping(model: Model, plan: SwapPlan) -> Iterator[None]:
    """Context manager; inside it the model's blocks are planned to come and go."""
    model.swap_plan = plan
    try:
        yield
    finally:
        model.swap_plan = SwapPlan()


def _float8_savings(task: Task) -> int:
    """Bytes that float8 saves on frozen layers of U-Net and text encoders (see `set_precision`)."""
    layers, plan = frozen_layers(task, ("unet", "te")), task.model.swap_plan
    small = {id(layer.weight) for layer in layers}

    def type_of(parameter: nn.Parameter) -> torch.dtype:
        return STORED if id(parameter) in small else parameter.dtype

    # Of blocks that come and go only the ring is on the device.
    away = [plan.freed_bytes(kind) - plan.ring_bytes(kind) for kind in (own_type, type_of)]
    return sum(layer.weight.nbytes - layer.weight.numel() for layer in layers) - away[0] + away[1]


def _with_8bit_adam(memory: Memory, task: Task, session: Session) -> Memory | None:
    """The memory with AdamW8bit's state; None where bitsandbytes is not installed."""
    count = sum(parameter.numel() for parameter in task.trained_parameters())
    try:
        each = state_per_weight(OptimizerOptions(optimizer_type="AdamW8bit"), session.device)
    except UserError:
        return None
    return replace(memory, optimizer=round(count * each))
