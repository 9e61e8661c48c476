"""Parts of a run made by hand: a task, a session, a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import fine_tune
import train_network
from library.data.batch import Batch
from library.data.plan import Course, Position
from library.models.ldm.model import LatentDiffusion
from library.options.network import NetworkOptions
from library.options.objective import ObjectiveOptions
from library.options.parser import parse
from library.training.job import Job
from library.training.run_plan import RunPlan
from library.training.session import Session
from library.training.start.model_setup import place_model, set_up_model, use_channels_last
from library.training.start.stepping import make_stepper
from library.training.stepper import Stepper
from library.training.tasks.model import ModelTask
from library.training.tasks.network import NetworkTask
from library.training.tasks.task import Task


def lora_task(model: LatentDiffusion) -> NetworkTask:
    """A LoRA of rank 16 beside the U-Net of a model."""
    network = NetworkOptions(network_module="networks.lora", network_dim=16, network_train_unet_only=True)
    rates = {"learning_rate": 1e-4, "clip_skip": None, "seed": 1}
    return NetworkTask(model, ObjectiveOptions(), network, **rates)


def session_in(precision: str, *, cpu: bool = True) -> Session:
    """A session on the CPU, or else where accelerate would have it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Session(Accelerator(mixed_precision=precision, cpu=cpu), 1, None)


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


LORA = (
    "--network_module",
    "networks.lora",
    "--network_dim",
    16,
    "--network_alpha",
    8,
    "--network_train_unet_only",
)
# Adam as on a GPU, one kernel for all tensors.
FUSED = ("--optimizer_type", "AdamW", "--optimizer_args", "fused=True")


def stepper_of(model: LatentDiffusion, *words: object, cpu: bool = True) -> Stepper:
    """What takes the steps of a run; the model in its place, in the memory order that it has on a GPU. The
    arguments are those of `job_of`.
    """
    job = job_of(model, *words, cpu=cpu)
    set_up_model(job)
    weights = place_model(job)
    use_channels_last(job.task)
    return make_stepper(job, weights)


def job_of(model: LatentDiffusion, *words: object, cpu: bool = True) -> Job:
    """A run of train_network.py with these words, or of fine_tune.py where they name no network.

    cpu: on the CPU, whatever there is besides.
    """
    paths = ("--pretrained_model_name_or_path", "x", "--train_data_dir", "x", "--output_dir", "x")
    script: Any = train_network if "--network_module" in words else fine_tune
    run = parse(script.Run, argv=[str(word) for word in (*paths, "--max_train_steps", 10, *words)])
    session = session_in(run.training.mixed_precision, cpu=cpu)
    settings = {"learning_rate": 1e-4, "clip_skip": None}
    task: Task
    if script is train_network:
        task = NetworkTask(model, run.objective, run.network, **settings, seed=1)
    else:
        task = ModelTask(model, run.objective, **settings)
    nothing: Any = None  # batches and output: a step needs none
    return Job(run, session, task, nothing, nothing, RunPlan(Course(10), 0, 10, ""))


def noisy_batch(model: LatentDiffusion, side: int = 8, *, has_text: bool = False) -> Batch:
    """One sample of cached latents that are not all alike.

    has_text: whether its text is cached, too.
    """
    batch, generator = latent_batch(model, side), torch.Generator().manual_seed(5)
    latents, noise = torch.randn((2, 1, 4, side, side), generator=generator)
    batch = replace(batch, latents=latents, noise=noise, u=torch.full((1,), 0.3))
    if not has_text:
        return batch
    text = {name: states.float() for name, states in _text_outputs(model, batch).items()}
    return replace(batch, text=text, tokens=())


@torch.no_grad()
def _text_outputs(model: LatentDiffusion, batch: Batch) -> dict[str, torch.Tensor]:
    return model.text_outputs(model.encode_text(batch.tokens))
