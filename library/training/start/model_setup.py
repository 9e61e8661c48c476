"""The model in its place: precision, attention, checkpointing, device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from library.models.compiling import compile_blocks
from library.models.swapping.blocks import SwappedBlocks
from library.models.swapping.plan import SwapPlan, plan_swap
from library.models.swapping.stores import make_store
from library.options.model import ModelOptions
from library.problems import Problem, UserError, warn_idle
from library.training.job import Job
from library.training.session import Session, dtype_of
from library.training.start.precision import set_precision


def set_up_model(job: Job) -> None:
    """Cast the model's parts, choose how attention is computed, whether activations are recomputed, and which
    blocks come and go.
    """
    run, session, task = job.run, job.session, job.task
    trained = dtype_of(run.training.trained_precision)
    assert trained is not None
    set_precision(
        task,
        session.frozen_dtype,
        trained=trained,
        no_half_vae=run.model.no_half_vae,
        float8=run.model.float8_parts,
    )
    task.use_attention(run.model.attention)
    if run.training.gradient_checkpointing:
        task.use_gradient_checkpointing(True)
    if run.training.blocks_to_swap:
        task.model.swap_plan = _plan_swap(job, run.training.blocks_to_swap)


def _plan_swap(job: Job, count: int) -> SwapPlan:
    """The blocks that come and go, after a line about them."""
    blocks = job.task.model.transformer_blocks()
    plan = plan_swap(blocks, count)
    if plan.trains:
        _check_trained(job)
    how_many = f"{len(plan.blocks)} of {len(blocks)}" if count < len(blocks) else f"all {len(blocks)}"
    more = f" (there are no {count})" if count > len(blocks) else ""
    checkpointing = (
        "" if job.run.training.gradient_checkpointing else "; --gradient_checkpointing is turned on"
    )
    job.session.say(
        f"{how_many} transformer blocks{more} come and go, {plan.main_bytes() / 2**20:,.0f} MB in main "
        f"memory{checkpointing}"
    )
    # Without it, gradients of blocks that come and go would be wrong.
    job.task.use_gradient_checkpointing(True)
    return plan


def _check_trained(job: Job) -> None:
    """Raises UserError for what does not work with blocks that come and go and are trained."""
    run, problems = job.run, []
    if not run.optimizer.fused_backward_pass:
        cause = "needs --fused_backward_pass where the U-Net is trained: a block is stepped while it is there"
        problems.append(Problem("--blocks_to_swap", cause, "give both"))
    if run.averaging.use_ema and job.session.device.type == "cuda" and run.averaging.ema_device != "cpu":
        cause = "needs --ema_device cpu with --use_ema where the U-Net is trained"
        problems.append(Problem("--blocks_to_swap", cause, "give both"))
    if problems:
        raise UserError(problems)


def place_model(job: Job) -> None:
    """Move the model to the device, in the memory layout that is fastest there, compiled if asked. Blocks
    that come and go begin to.
    """
    run, session, model, task = job.run, job.session, job.task.model, job.task
    if model.swap_plan:
        model.swapped = SwappedBlocks(make_store(session.device), model.swap_plan)
    task.to(session.device)
    if run.model.torch_compile:
        _compile(task.blocks(), run.model, session)
    if model.swapped is not None:
        model.swapped.attach()
    if session.device.type == "cuda":
        use_channels_last(task)


def _compile(blocks: Sequence[nn.Module], options: ModelOptions, session: Session) -> None:
    """Compile blocks as they are met."""
    backend, mode, device = options.dynamo_backend, options.torch_compile_mode, session.device
    if mode == "reduce-overhead" and backend == "inductor" and device.type != "cuda":
        warn_idle(f"--torch_compile_mode {mode}", "without an NVIDIA GPU")
    count = compile_blocks(blocks, backend, mode=mode, device=device)
    if count:
        session.say(f"{count} blocks of the U-Net are compiled as they are met: the first steps take longer")


def use_channels_last(task: nn.Module) -> None:
    """Lay out the weights of all convolutions, a network's too, as GPUs compute with them fastest."""
    for module in task.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, not typed
