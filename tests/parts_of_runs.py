"""Parts of a run made by hand: a task, a session, a batch."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from library.data.batch import Batch
from library.data.plan import Position
from library.models.ldm.model import LatentDiffusion
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.training.session import Session
from library.training.tasks.network import NetworkTask


def lora_task(model: LatentDiffusion) -> NetworkTask:
    """A LoRA of rank 16 beside the U-Net of a model."""
    network = NetworkOptions(network_module="networks.lora", network_dim=16, network_train_unet_only=True)
    rates = {"learning_rate": 1e-4, "clip_skip": None, "seed": 1}
    return NetworkTask(model, ObjectiveOptions(), network, **rates)


def session_in(precision: str) -> Session:
    """A session on the CPU."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Session(Accelerator(mixed_precision=precision, cpu=True), 1, None)


def latent_batch(model: LatentDiffusion, side: int) -> Batch:
    """One sample of cached latents of this side."""
    latents = torch.zeros(1, 4, side, side)
    return Batch(
        pixels=None,
        latents=latents,
        masks=None,
        tokens=tuple(torch.zeros(1, 1, 77, dtype=torch.long) for _ in model.text_encoders),
        text=None,
        captions=[""],
        sizes=torch.zeros(1, 6, dtype=torch.long),
        weights=torch.ones(1),
        divisor=1,
        noise=latents,
        u=torch.zeros(1),
        posterior=None,
        network_multiplier=1.0,
        attributes=[{}],
        position=Position(0, 0, 0, 1, True),
        names=["a"],
    )
