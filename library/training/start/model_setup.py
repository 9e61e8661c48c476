"""The model in its place: precision, attention, checkpointing, device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from library.models.compiling import compile_blocks
from library.models.swapping.blocks import SwappedBlocks
from library.models.swapping.stores import make_store
from library.options.model import ModelOptions
from library.problems import warn_idle
from library.training.job import Job
from library.training.pace.limit import limit_memory
from library.training.session import Session, dtype_of
from library.training.sharding.whole import Weights
from library.training.start.precision import set_precision
from library.training.start.swapping import plan_swapping


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
    plan_swapping(job)


def place_model(job: Job) -> Weights:
    """Move the model to the device, in the memory layout that is fastest there, compiled if asked; or this
    process's share of it. Blocks that come and go begin to. Returns how the processes hold it. Where the
    system lends main memory to a full device, it may take no more than is free there.
    """
    run, session, model, task = job.run, job.session, job.task.model, job.task
    limit_memory(session.device, run.training.allow_shared_memory)
    if run.processes.shard is not None and session.accelerator.num_processes > 1:
        from library.training.sharding.sharded import ShardedWeights

        return ShardedWeights(session, task, run.processes.shard)
    if model.swap_plan:
        model.swapped = SwappedBlocks(make_store(session.device), model.swap_plan)
    task.to(session.device)
    if run.model.torch_compile:
        _compile(task.blocks(), run.model, session)
    if model.swapped is not None:
        model.swapped.attach()
    if session.device.type == "cuda":
        use_channels_last(task)
    return Weights(session)


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
