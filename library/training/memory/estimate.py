"""The memory of a training step, estimated without taking it.

The real task runs a step on tensors that have shapes, types and a device but no memory (torch's FakeTensor),
while every storage that is made and freed is counted. So nothing here knows any family, network or loss.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
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
from library.training.pace.work import Work
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
    work: the operators of the step without these two, of its text encoders ("text"), and of encoding.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    encoding: int = 0
    stepping: int = 0
    caching: int = 0
    main: int = 0
    work: Mapping[str, Work] = field(default_factory=dict, compare=False)

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
    work: the operators, by `part`.
    """

    def __init__(self, known: Iterable[Tensor], part: str = "step") -> None:
        super().__init__()
        self.live = self.peak = 0
        self.part, self.work = part, defaultdict[str, Work](Work)
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        result = func(*given, **(named or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        self.work[self.part].add(func, given, named or {}, result)
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
    trained: torch.dtype | None = None,
) -> Memory:
    """What a step over a batch takes at its peak, with the task as it is set up now: its weights' types,
    gradient checkpointing, attention. Task and batch stay unchanged.

    frozen: estimate as if frozen float32 weights had this type and the step were computed in it; None: as
        they are.
    trained: estimate as if trained weights had this type; None: as they are.
    Raises RuntimeError (or a kind of it) where an operation cannot run on tensors without memory.
    """
    types = _Types(frozen, trained)
    parameters = task.trained_parameters()
    gradients = sum(parameter.numel() * types.of(parameter).itemsize for parameter in parameters)
    copies = gradients if session.accelerator.num_processes > 1 else 0  # DDP's buckets
    frees = bool(optimizer.steps_in_backward)
    work = {"step": Work(), "text": Work(), "encoding": Work()}
    activations, encoding = _run_without_memory(task, session, batch, types, work, frees_gradients=frees)
    return Memory(
        weights=sum(tensor.numel() * dtype.itemsize for tensor, dtype in _planned(task, types).values()),
        gradients=gradients + copies,
        optimizer=round(sum(p.numel() for p in parameters) * state_per_weight(optimizer, session.device)),
        activations=activations if frees else max(0, activations - gradients),
        encoding=encoding,
        stepping=_stepping(parameters, types),
        work=work,
    )


@dataclass(frozen=True)
class _Types:
    """What the types of weights are taken to be. The fields are those of `estimate`."""

    frozen: torch.dtype | None
    trained: torch.dtype | None

    def of(self, tensor: Tensor) -> torch.dtype:
        if tensor.requires_grad:
            return self.trained or tensor.dtype
        is_cast = self.frozen is not None and tensor.dtype == torch.float32
        return self.frozen if is_cast and self.frozen is not None else tensor.dtype


def _stepping(trained: list[nn.Parameter], types: _Types) -> int:
    """Bytes that a step takes for 16-bit weights: a chunk of them at a time in float32, with gradients and
    what rounds them; else 0.
    """
    half = [parameter.numel() for parameter in trained if types.of(parameter) != torch.float32]
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
    return _Types(frozen, None).of


def _planned(task: Task, types: _Types) -> dict[str, tuple[Tensor, torch.dtype]]:
    """Every weight and buffer with the type that it is to have."""
    named = [*task.named_parameters(), *task.named_buffers()]
    return {name: (tensor, types.of(tensor)) for name, tensor in named}


def _run_without_memory(
    task: Task,
    session: Session,
    batch: Batch,
    types: _Types,
    work: dict[str, Work],
    *,
    frees_gradients: bool,
) -> tuple[int, int]:
    """The peak of a step over latents, gradients included, and that of encoding the batch's pictures.

    work: gets the operators of both.
    frees_gradients: each one as soon as it is there, as steps in the backward pass do.
    """
    was_training = task.training
    task.train()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            planned = _planned(task, types).items()
            weights = {name: _fake(tensor, session.device, dtype) for name, (tensor, dtype) in planned}
            batch = batch.with_tensors(lambda tensor: _fake(tensor, session.device))
            step = _Step(task, session, types.frozen, frees_gradients, work)
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
        self,
        task: Task,
        session: Session,
        precision: torch.dtype | None,
        frees_gradients: bool,
        work: dict[str, Work],
    ) -> None:
        super().__init__()
        self.work = work
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
        counter = StorageCounter(weights.values(), "encoding" if encodes else "step")
        with counter, _counted_apart(self.task.model.text_encoders, counter):
            named = {f"task.{name}": tensor for name, tensor in weights.items()}
            result = torch.func.functional_call(self, named, (batch, encodes))
        self.work |= counter.work
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


@contextmanager
def _counted_apart(text_encoders: Iterable[nn.Module], counter: StorageCounter) -> Iterator[None]:
    """Context manager; inside it the operators of the text encoders' forward passes are those of "text"."""

    def part_is(part: str) -> Callable[..., None]:
        return lambda *_: setattr(counter, "part", part)

    hooks = []
    for encoder in text_encoders:
        hooks += [
            encoder.register_forward_pre_hook(part_is("text")),
            encoder.register_forward_hook(part_is(counter.part)),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _free(weight: Tensor) -> None:
    weight.grad = None


def _fake(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    dtype = dtype or tensor.dtype
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=device)
    return fake.requires_grad_(tensor.requires_grad)
