"""What is shared out together: FSDP2 gathers a unit's weights before it runs, and drops them after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from library.models.text import body

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from library.training.tasks.task import Task


def share_out(task: Task, mesh: DeviceMesh, dtype: torch.dtype) -> list[FSDPModule]:
    """Share out the denoiser's weights, and those of the text encoders that are trained. Returns their roots.

    dtype: of mixed precision; gradients are added up in float32.

    Never the task itself: its denoiser runs several times in one forward pass of previews and validation, and
    the VAE and what a network adds stay whole. Nor a text encoder itself: its last norm and projection are
    called outside its forward pass, and transformers knows outputs by a model's class, which FSDP2 changes.
    Inputs are not cast: timesteps of 16 bits would be others.
    """
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    denoiser, roots = task.model.denoiser, []
    for block in task.model.blocks():
        fully_shard(block, mesh=mesh, mp_policy=policy)
    roots.append(fully_shard(denoiser, mesh=mesh, mp_policy=policy, reshard_after_forward=True))
    for encoder in task.model.text_encoders:
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            continue
        inside = body(encoder)
        for layer in inside.encoder.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        roots += [
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
            for module in (inside.embeddings, inside.encoder)
        ]
    return roots
