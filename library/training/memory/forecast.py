"""The memory that a run needs: a step's, with what the run's options save or add."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from library.data.batch import Batch
from library.data.plan import Position
from library.models.swapping.plan import SwapPlan, TypeOf, own_type
from library.training.job import Job
from library.training.memory.estimate import Memory, chunk_size, estimate, planned_type
from library.training.run import TrainingRun
from library.training.session import Session
from library.training.tasks.task import Task


def run_memory(
    task: Task, run: TrainingRun, session: Session, batch: Batch, *, frozen: torch.dtype | None = None
) -> Memory:
    """The memory of a run whose largest batch is `batch`, with the task as it is set up. Both stay unchanged.

    frozen: as for `estimate`.
    Raises RuntimeError (or a kind of it), NotImplementedError or TypeError where it cannot be told.
    """
    memory = estimate(task, session, batch, run.optimizer, frozen=frozen)
    return with_options(memory, task, run, session, frozen=frozen, pictures=len(batch.weights))


def with_options(
    memory: Memory,
    task: Task,
    run: TrainingRun,
    session: Session,
    *,
    frozen: torch.dtype | None = None,
    pictures: int = 1,
) -> Memory:
    """A step's memory with what the run's options save or add.

    frozen: as for `estimate`.
    pictures: how many the step encodes.
    """
    memory = with_swapping(memory, task.model.swap_plan, planned_type(frozen))
    if run.optimizer.steps_in_backward:
        # Each part's gradients are freed before the next part's exist.
        parts = gradient_parts(task, run.optimizer.fused_optimizer_groups)
        # Where there are several, the first is stepped while nearly all activations are there.
        besides = memory.stepping if parts > 1 else 0
        memory = replace(
            memory, gradients=memory.gradients // parts, activations=memory.activations + besides
        )
    if run.caching.caches_latents:
        away = offloaded_vae(task, run, session)
        caching = away + memory.encoding * run.caching.vae_batch_size // pictures
        memory = replace(memory, encoding=0, weights=memory.weights - away, caching=caching)
    if run.caching.caches_text:
        away = offloaded_bytes(task.model.text_encoders, run, session)
        memory = replace(memory, weights=memory.weights - away, caching=memory.caching + away)
    if run.averaging.use_ema and run.averaging.ema_device in (None, session.device.type):
        # Averages are float32, whatever the weights are.
        averages = 4 * sum(parameter.numel() for parameter in task.trained_parameters())
        memory = replace(memory, weights=memory.weights + averages)
    processes = session.accelerator.num_processes
    if run.processes.shard is not None and processes > 1:
        memory = shared_out(memory, task, processes)
    return memory


def shared_out(memory: Memory, task: Task, processes: int) -> Memory:
    """One process's memory where weights are shared out; two blocks are gathered at a time."""
    encoders = [one for one in task.model.text_encoders if any(p.requires_grad for p in one.parameters())]
    weights = [parameter for part in (task.model.denoiser, *encoders) for parameter in part.parameters()]
    elsewhere = sum(weight.nbytes for weight in weights) * (processes - 1) // processes
    block = max(sum(p.nbytes for p in block.parameters()) for block in task.model.blocks())
    memory = replace(memory, weights=memory.weights - elsewhere, activations=memory.activations + 2 * block)
    if not any(weight.requires_grad for weight in weights):
        return memory
    # Without DDP's copies of gradients, which are as large as these.
    return replace(
        memory, gradients=memory.gradients // 2 // processes, optimizer=memory.optimizer // processes
    )


def with_swapping(memory: Memory, plan: SwapPlan, type_of: TypeOf = own_type) -> Memory:
    """A step's memory where blocks come and go: all that is left of them on the device is the ring.

    memory: where all blocks stay.
    type_of: the type that each weight is to have.
    """
    away = plan.freed_bytes(type_of) - plan.ring_bytes(type_of)
    return replace(memory, weights=memory.weights - away, main=memory.main + plan.main_bytes(type_of))


def gradient_parts(task: Task, groups: int | None) -> int:
    """How often the gradients that are in memory at once fit into all.

    groups: how many parts are stepped one by one; None: weights are, small ones together.
    """
    trained = task.trained_parameters()
    sizes = [parameter.numel() for parameter in trained]
    is_rounded = all(parameter.dtype != torch.float32 for parameter in trained)
    return groups or max(1, sum(sizes) // (chunk_size(sizes) if is_rounded else 2 * max(sizes)))


def offloaded_vae(task: Task, run: TrainingRun, session: Session) -> int:
    """The same of the VAE, which stays where masked pictures are encoded at every step."""
    return 0 if task.model.is_inpainting else offloaded_bytes(task.model.vae, run, session)


def offloaded_bytes(part: nn.Module, run: TrainingRun, session: Session) -> int:
    """Bytes of a part of the model if it is offloaded once its results are cached (see `fill_caches`), else
    0.
    """
    stays = run.preview.sample_prompts is not None or session.accelerator.num_processes > 1
    if stays or session.device.type == "cpu":
        return 0
    return sum(parameter.nbytes for parameter in part.parameters())


def largest_batch(job: Job) -> Batch:
    """The first epoch's batch that takes the most memory. It holds pictures and captions, whatever caches
    there are to be.
    """
    session, batches = job.session, job.batches
    number = batches.largest_batch(session.seed, session.accelerator.num_processes)
    builder = batches.builder(
        job.task.model,
        job.run,
        session,
        total_steps=job.plan.last_step,
        needs=job.task.needs,
    )
    return builder.build(Position(epoch=0, batch=number, step=0, window=1, closes=True))


def device_memory(device: torch.device) -> tuple[int, int]:
    """Bytes free and bytes in total, of the GPU or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    import psutil

    memory = psutil.virtual_memory()
    return memory.available, memory.total
