"""How much memory a run needs on its device, and which options would lower it by how much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from library.data.batch import Batch
from library.options.optimizer import OptimizerOptions
from library.problems import UserError
from library.training.dry_run.memory_estimate import Memory, chunk_size, estimate, state_per_weight
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
        memory = _with_options(estimate(task, session, batch, run.optimizer), task, run, session)
        found = list(_choices(memory, task, run, session, batch))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return MemoryForecast(None, reason=str(error).splitlines()[0])
    lower = [(text, peak) for text, peak in found if memory.peak - peak > MIN_SAVING * memory.peak]
    return MemoryForecast(memory, tuple(sorted(lower, key=lambda choice: choice[1])))


def device_memory(device: torch.device) -> tuple[int, int]:
    """Bytes free and bytes in total, of the GPU or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    import psutil

    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _with_options(memory: Memory, task: Task, run: TrainingRun, session: Session) -> Memory:
    """A step's memory with what the run's options save or add."""
    if run.optimizer.steps_in_backward:
        # Each part's gradients are freed before the next part's exist.
        parts = _parts(task, run.optimizer.fused_optimizer_groups)
        # Where there are several, the first is stepped while nearly all activations are there.
        besides = memory.stepping if parts > 1 else 0
        memory = replace(
            memory, gradients=memory.gradients // parts, activations=memory.activations + besides
        )
    if run.caching.caches_latents:
        away = _offloaded_vae(task, run, session)
        memory = replace(memory, encoding=0, weights=memory.weights - away)
    if run.caching.caches_text:
        away = _offloaded_bytes(task.model.text_encoders, run, session)
        memory = replace(memory, weights=memory.weights - away)
    if run.averaging.use_ema and run.averaging.ema_device in (None, session.device.type):
        # Averages are float32, whatever the weights are.
        averages = 4 * sum(parameter.numel() for parameter in task.trained_parameters())
        memory = replace(memory, weights=memory.weights + averages)
    processes = session.accelerator.num_processes
    if run.processes.shard is not None and processes > 1:
        memory = _shared_out(memory, task, processes)
    return memory


def _shared_out(memory: Memory, task: Task, processes: int) -> Memory:
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


def _parts(task: Task, groups: int | None) -> int:
    """How often the gradients that are in memory at once fit into all.

    groups: how many parts are stepped one by one; None: weights are, small ones together.
    """
    trained = task.trained_parameters()
    sizes = [parameter.numel() for parameter in trained]
    is_rounded = all(parameter.dtype != torch.float32 for parameter in trained)
    return groups or max(1, sum(sizes) // (chunk_size(sizes) if is_rounded else 2 * max(sizes)))


def _offloaded_vae(task: Task, run: TrainingRun, session: Session) -> int:
    """The same of the VAE, which stays where masked pictures are encoded at every step."""
    return 0 if task.model.is_inpainting else _offloaded_bytes(task.model.vae, run, session)


def _offloaded_bytes(part: nn.Module, run: TrainingRun, session: Session) -> int:
    """Bytes of a part of the model if it is offloaded once its results are cached (see `fill_caches`), else
    0.
    """
    stays = run.preview.sample_prompts is not None or session.accelerator.num_processes > 1
    if stays or session.device.type == "cpu":
        return 0
    return sum(parameter.nbytes for parameter in part.parameters())


def _choices(
    memory: Memory, task: Task, run: TrainingRun, session: Session, batch: Batch
) -> Iterator[tuple[str, int]]:
    if not run.caching.caches_latents:
        away = _offloaded_vae(task, run, session)
        yield "--cache_latents", replace(memory, encoding=0, weights=memory.weights - away).peak
    if not run.caching.caches_text and not run.trains_text:
        away = _offloaded_bytes(task.model.text_encoders, run, session)
        text = "--cache_text_encoder_outputs (for captions that never change)"
        yield text, replace(memory, weights=memory.weights - away).peak
    if not run.training.gradient_checkpointing:
        with _checkpointing(task):
            found = _with_options(estimate(task, session, batch, run.optimizer), task, run, session)
        yield "--gradient_checkpointing", found.peak
    if _could_step_in_backward(run, session):
        yield "--fused_backward_pass", replace(memory, gradients=memory.gradients // _parts(task, None)).peak
    if run.training.mixed_precision == "no" and not run.training.trains_in_16_bits:
        found = estimate(task, session, batch, run.optimizer, frozen=torch.bfloat16)
        yield "--mixed_precision bf16", _with_options(found, task, run, session).peak
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


@contextmanager
def _checkpointing(task: Task) -> Iterator[None]:
    """Context manager; inside it the model recomputes activations."""
    task.use_gradient_checkpointing(True)
    try:
        yield
    finally:
        task.use_gradient_checkpointing(False)


def _float8_savings(task: Task) -> int:
    """Bytes that float8 saves on frozen layers of U-Net and text encoders (see `set_precision`)."""
    return sum(layer.weight.nbytes - layer.weight.numel() for layer in frozen_layers(task, ("unet", "te")))


def _with_8bit_adam(memory: Memory, task: Task, session: Session) -> Memory | None:
    """The memory with AdamW8bit's state; None where bitsandbytes is not installed."""
    count = sum(parameter.numel() for parameter in task.trained_parameters())
    try:
        each = state_per_weight(OptimizerOptions(optimizer_type="AdamW8bit"), session.device)
    except UserError:
        return None
    return replace(memory, optimizer=round(count * each))
