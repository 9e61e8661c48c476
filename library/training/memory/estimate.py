"""The memory of a training step, estimated without taking it.

The real task runs a step on tensors that have shapes, types and a device but no memory (torch's FakeTensor),
while every storage that is made and freed is counted. So nothing here knows any family, network or loss.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from library.data.batch import Batch
from library.options.optimizer import OptimizerOptions
from library.param_groups import ParamGroup
from library.training.optimization.optimizers import make_optimizer
from library.training.optimization.rounding import CHUNK
from library.training.optimization.self_tuning import begin_training
from library.training.session import Session
from library.training.tasks.task import Task

BYTES_TO_ROUND = 16  # for a 16-bit weight in its step: itself and its gradient in float32, and its rounding
PROBE = 256  # the side of the matrix on which an optimizer's state is measured


@dataclass(frozen=True)
class Memory:
    """Bytes on the device, but for `main`.

    weights: all that stays there, trained and frozen.
    gradients: of what is trained.
    optimizer: the optimizer's state after its first step.
    activations: the most that a step needs besides.
    encoding: the most that encoding a batch's pictures needs; 0 where latents are cached.
    stepping: the most that the optimizer's step needs besides, after the activations are gone.
    caching: what filling caches takes before the first step, besides the weights: parts that leave the device
        after it, and what encoding needs. Caches that are full already need less. Not part of the peak.
    main: bytes of main memory that blocks which come and go wait in.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    encoding: int = 0
    stepping: int = 0
    caching: int = 0
    main: int = 0

    @property
    def peak(self) -> int:
        """The most bytes at once. Pictures are encoded before there are activations."""
        step = self.gradients + max(self.activations, self.stepping)
        return self.weights + self.optimizer + max(step, self.encoding)


class StorageCounter(TorchDispatchMode):
    """Context manager; inside it the bytes of all storages that operations make are counted.

    known: tensors that existed before and do not count.
    live: bytes at this moment.
    peak: the most bytes at once.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        result = func(*given, **(named or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # views share it, so that they count once
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def estimate(
    task: Task,
    session: Session,
    batch: Batch,
    optimizer: OptimizerOptions,
    *,
    frozen: torch.dtype | None = None,
) -> Memory:
    """What a step over a batch takes at its peak, with the task as it is set up now: its weights' types,
    gradient checkpointing, attention. Task and batch stay unchanged.

    frozen: estimate as if frozen float32 weights had this type and the step were computed in it; None: as
        they are.
    Raises RuntimeError (or a kind of it) where an operation cannot run on tensors without memory.
    """
    trained = task.trained_parameters()
    gradients = sum(parameter.nbytes for parameter in trained)
    copies = gradients if session.accelerator.num_processes > 1 else 0  # DDP's buckets
    frees = bool(optimizer.steps_in_backward)
    activations, encoding = _run_without_memory(task, session, batch, frozen, frees_gradients=frees)
    return Memory(
        weights=sum(tensor.numel() * dtype.itemsize for tensor, dtype in _planned(task, frozen).values()),
        gradients=gradients + copies,
        optimizer=round(sum(p.numel() for p in trained) * state_per_weight(optimizer, session.device)),
        activations=activations if frees else max(0, activations - gradients),
        encoding=encoding,
        stepping=_stepping(trained),
    )


def _stepping(trained: list[nn.Parameter]) -> int:
    """Bytes that a step takes for 16-bit weights: a chunk of them at a time in float32, with gradients and
    what rounds them; else 0.
    """
    half = [parameter.numel() for parameter in trained if parameter.dtype != torch.float32]
    if not half:
        return 0
    # A chunk has CHUNK weights at most, or is a single larger parameter.
    return BYTES_TO_ROUND * chunk_size(half)


def chunk_size(sizes: Sequence[int]) -> int:
    """How many of some 16-bit parameters' weights are stepped at once."""
    return min(sum(sizes), max(CHUNK, *sizes))


def state_per_weight(options: OptimizerOptions, device: torch.device) -> float:
    """Bytes of optimizer state per trained weight, measured after one step on a small matrix."""
    probe = nn.Parameter(torch.ones(PROBE, PROBE, device=device))
    optimizer = make_optimizer([ParamGroup(params=[probe], lr=1e-4, name="probe")], options)
    probe.grad = torch.ones_like(probe)
    begin_training(optimizer)
    optimizer.step()
    state = [leaf for leaf in tree_leaves(list(optimizer.state.values())) if isinstance(leaf, Tensor)]
    # Scalars are step counters: they do not grow with the weights.
    return sum(tensor.nbytes for tensor in state if tensor.numel() > 1) / probe.numel()


def planned_type(frozen: torch.dtype | None) -> Callable[[Tensor], torch.dtype]:
    """The type that a weight is to have; frozen: as for `estimate`."""

    def type_of(tensor: Tensor) -> torch.dtype:
        if frozen is None or tensor.dtype != torch.float32 or tensor.requires_grad:
            return tensor.dtype
        return frozen

    return type_of


def _planned(task: Task, frozen: torch.dtype | None) -> dict[str, tuple[Tensor, torch.dtype]]:
    """Every weight and buffer with the type that it is to have."""
    type_of = planned_type(frozen)
    named = [*task.named_parameters(), *task.named_buffers()]
    return {name: (tensor, type_of(tensor)) for name, tensor in named}


def _run_without_memory(
    task: Task, session: Session, batch: Batch, frozen: torch.dtype | None, *, frees_gradients: bool
) -> tuple[int, int]:
    """The peak of a step over latents, gradients included, and that of encoding the batch's pictures.

    frees_gradients: each one as soon as it is there, as steps in the backward pass do.
    """
    was_training = task.training
    task.train()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            planned = _planned(task, frozen).items()
            weights = {name: _fake(tensor, session.device, dtype) for name, (tensor, dtype) in planned}
            batch = batch.with_tensors(lambda tensor: _fake(tensor, session.device))
            step = _Step(task, session, frozen, frees_gradients)
            encoding = 0
            if batch.pixels is not None:
                encoding, latents = step.follow(weights, batch, encodes=True)
                pixels = batch.pixels if task.needs.pixels else None
                batch = dataclasses.replace(batch, latents=latents, pixels=pixels, posterior=None)
            return step.follow(weights, batch, encodes=False)[0], encoding
    finally:
        task.train(was_training)


class _Step(nn.Module):
    """A step as one module, so that its weights can be swapped for fake ones."""

    def __init__(
        self, task: Task, session: Session, precision: torch.dtype | None, frees_gradients: bool
    ) -> None:
        super().__init__()
        self.task, self.frees_gradients = task, frees_gradients
        self.dtype = precision or session.frozen_dtype
        self.autocast = session.accelerator.autocast
        if precision is not None:
            self.autocast = partial(torch.autocast, session.device.type, precision)

    def follow(self, weights: dict[str, Tensor], batch: Batch, *, encodes: bool) -> tuple[int, Any]:
        """The peak of one pass, and its result."""
        if self.frees_gradients and not encodes:
            for weight in weights.values():
                if weight.requires_grad:
                    weight.register_post_accumulate_grad_hook(_free)
        counter = StorageCounter(weights.values())
        with counter:
            named = {f"task.{name}": tensor for name, tensor in weights.items()}
            result = torch.func.functional_call(self, named, (batch, encodes))
        return counter.peak, result

    def forward(self, batch: Batch, encodes: bool) -> Tensor | None:
        if encodes:
            with self.autocast():
                return self.task.latents(batch)
        with nullcontext() if self.frees_gradients else self.task.computing_in(self.dtype):
            with self.autocast():
                loss = self.task(batch)
            loss.backward()
        return None


def _free(weight: Tensor) -> None:
    weight.grad = None


def _fake(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    dtype = dtype or tensor.dtype
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=device)
    return fake.requires_grad_(tensor.requires_grad)
