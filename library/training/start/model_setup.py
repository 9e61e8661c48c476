"""The model in its place: precision, attention, checkpointing, device."""

from __future__ import annotations

import torch
from torch import nn

from library.models.compiling import check_backend, compile_blocks
from library.training.job import Job
from library.training.session import dtype_of
from library.training.start.precision import set_precision


def set_up_model(job: Job) -> None:
    """Cast the model's parts, choose how attention is computed and whether activations are recomputed."""
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
    task.model.use_attention(run.model.attention)
    if run.training.gradient_checkpointing:
        task.model.use_gradient_checkpointing(denoiser=True, text_encoders=task.needs_text_gradients(0))


def place_model(job: Job) -> None:
    """Move the model to the device, in the memory layout that is fastest there, compiled if asked."""
    run, session, task = job.run, job.session, job.task
    task.to(session.device)
    if run.model.torch_compile:
        check_backend(run.model.dynamo_backend, session.device)
        count = compile_blocks(task.model.blocks(), run.model.dynamo_backend)
        session.say(f"{count} blocks of the U-Net are compiled as they are met: the first steps take longer")
    if session.device.type == "cuda":
        use_channels_last(task)


def use_channels_last(task: nn.Module) -> None:
    """Lay out the weights of all convolutions, a network's too, as GPUs compute with them fastest."""
    for module in task.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, not typed
