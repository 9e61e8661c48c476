"""Which options make a run fit into a card at the least loss of time: all sets of them are compared, by the
memory and the time that a step is estimated to take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, combinations

import torch
from torch import Tensor, nn

from library.data.batch import Batch
from library.options.optimizer import OptimizerOptions
from library.problems import UserError, without_warnings
from library.training.dry_run.memory_choices import (
    _checkpointing,
    _could_step_in_backward,
)
from library.training.memory.estimate import Memory, chunk_size, estimate, state_per_weight
from library.training.memory.forecast import gradient_parts, with_options
from library.training.pace.limit import MARGIN
from library.training.pace.work import LAUNCH, Speeds
from library.training.run import TrainingRun
from library.training.session import Session
from library.training.start.precision import frozen_layers
from library.training.tasks.task import Task

GAPS = 0.05  # of a card, lost between the allocator's blocks
MANY = 0.05  # of all weights: where fewer are trained, their type decides little
WORTH = 0.01  # of the time: an option that saves less, and no memory that is needed, is not proposed
# By what they cost in general: the order in which they are listed.
LATENTS, TEXT, BF16 = "--cache_latents", "--cache_text_encoder_outputs", "--mixed_precision bf16"
ADAM8, FUSED = "--optimizer_type AdamW8bit", "--fused_backward_pass"
FULL, FP8, CHECKPOINTING = "--full_bf16", "--fp8_base", "--gradient_checkpointing"
BYTES_STEPPED = 70  # that a step of a 16-bit weight moves (tests/library/training/optimization)


@dataclass(frozen=True)
class Price:
    """What an option changes beside those that are listed before it.

    saved: bytes of the peak.
    time: of a step, as a factor.
    """

    option: str
    saved: int
    time: float


@dataclass(frozen=True)
class Proposal:
    """Options that make a run fit.

    prices: of each; none where the run fits as it is and nothing is faster.
    peak: bytes that a step then takes.
    seconds, before: of a step, with them and as the run is.
    """

    prices: tuple[Price, ...]
    peak: int
    seconds: float
    before: float


def room_in(card: int) -> int:
    """Bytes that a step may take on a card of so many: not what CUDA and other programs take, nor gaps."""
    return max(0, round(card * (1 - GAPS)) - MARGIN)


@dataclass
class Choices:
    """The options that a run may still choose, and what a step takes with any set of them.

    leaves: whether parts whose results are cached leave the device.
    could_cache: whether pictures, and captions, are the same in every epoch.
    """

    task: Task
    run: TrainingRun
    session: Session
    batch: Batch
    speeds: Speeds
    leaves: bool
    could_cache: tuple[bool, bool] = (True, True)
    _raw: dict[tuple[bool, ...], Memory] = field(default_factory=dict)
    _figures: dict[frozenset[str], tuple[int, float]] = field(default_factory=dict)

    @property
    def single(self) -> str:
        """A batch of one picture."""
        count = len(self.batch.weights) * self.run.training.gradient_accumulation_steps
        return f"--train_batch_size 1 --gradient_accumulation_steps {count}"

    def open(self) -> list[str]:
        """The options that the run could still be given, in the order of this file."""
        run, session = self.run, self.session
        pictures, captions = self.could_cache
        is_adam = run.optimizer.optimizer_name.lower() in ("adam", "adamw")
        tries: tuple[tuple[str, bool], ...] = (
            (LATENTS, pictures and not run.caching.caches_latents and self.batch.pixels is not None),
            (TEXT, captions and not (run.caching.caches_text or run.trains_text or self.batch.text)),
            (BF16, run.training.mixed_precision == "no" and not run.training.trains_in_16_bits),
            (ADAM8, is_adam and self._adam_8bit is not None),
            (FUSED, _could_step_in_backward(run, session)),
            (FULL, self._may_be_rounded()),
            (FP8, not run.model.float8_parts and bool(frozen_layers(self.task, ("unet", "te")))),
            (CHECKPOINTING, not run.training.gradient_checkpointing),
            (self.single, len(self.batch.weights) > 1),
        )
        return [option for option, is_open in tries if is_open]

    def figures(self, chosen: Collection[str]) -> tuple[int, float]:
        """The peak in bytes and the seconds of a step with these options."""
        key = frozenset(chosen)
        if key not in self._figures:
            raw = self._estimated(key)
            self._figures[key] = self._memory(raw, key).peak, self._seconds(raw, key)
        return self._figures[key]

    def allowed(self, chosen: Collection[str]) -> bool:
        """Whether the options go together: accumulation needs all gradients, weights of 16 bits a computation
        in them.
        """
        if FULL in chosen and BF16 not in chosen and self.run.training.mixed_precision != "bf16":
            return False
        accumulates = self.single in chosen or self.run.training.gradient_accumulation_steps > 1
        frees = FUSED in chosen or bool(self.run.optimizer.steps_in_backward)
        return not (accumulates and frees)

    def _estimated(self, chosen: frozenset[str]) -> Memory:
        key = (CHECKPOINTING in chosen, BF16 in chosen, self.single in chosen, FULL in chosen)
        if key not in self._raw:
            batch = first_of(self.batch) if key[2] else self.batch
            with ExitStack() as stack:
                if key[0]:
                    stack.enter_context(_checkpointing(self.task, self.run))
                frozen = torch.bfloat16 if key[1] else None
                trained = torch.bfloat16 if key[3] else None
                options = self.run.optimizer
                self._raw[key] = estimate(
                    self.task, self.session, batch, options, frozen=frozen, trained=trained
                )
        return self._raw[key]

    def _memory(self, raw: Memory, chosen: frozenset[str]) -> Memory:
        run, task = self.run, self.task
        with without_warnings():
            caching = replace(run.caching, **dict.fromkeys(_CACHES, False), **_UNCACHED)
            bare = replace(run, caching=caching)
        memory = with_options(raw, task, bare, self.session)
        weights, is_half = memory.weights, BF16 in chosen
        if self._is_cached(LATENTS, chosen):
            memory = replace(memory, encoding=0)
            weights -= 0 if task.model.is_inpainting else self._away(task.model.vae, is_half)
        if self._is_cached(TEXT, chosen):
            weights -= self._away(task.model.text_encoders, is_half)
        if FP8 in chosen:
            weights -= self._float8_savings(chosen)
        memory = replace(memory, weights=weights)
        if FUSED in chosen:
            memory = self._freeing(memory, FULL in chosen)
        if ADAM8 in chosen:
            memory = replace(memory, optimizer=round(self._trained * (self._adam_8bit or 0)))
        return memory

    def _seconds(self, raw: Memory, chosen: frozenset[str]) -> float:
        speeds, work = self.speeds, raw.work
        each = work["step"].seconds(speeds)
        if not self._is_cached(TEXT, chosen):
            each += work["text"].seconds(speeds)
        if not self._is_cached(LATENTS, chosen):
            each += work["encoding"].seconds(speeds)
        if FP8 in chosen:  # a byte is read and two are written, for each pass over the weights
            passes = 3 if CHECKPOINTING in chosen or self.run.training.gradient_checkpointing else 2
            count = sum(layer.weight.numel() for layer in frozen_layers(self.task, ("unet", "te")))
            each += passes * 3 * count / (speeds.gb_s * 1e9)
        times = len(self.batch.weights) if self.single in chosen else 1
        return times * each + self._stepping(chosen)

    def _stepping(self, chosen: frozenset[str]) -> float:
        """Seconds of the optimizer: weights, gradients and its state are read, two of them written."""
        state = (
            self._adam_8bit if ADAM8 in chosen else state_per_weight(self.run.optimizer, self.session.device)
        )
        each = (
            BYTES_STEPPED if FULL in chosen or self.run.training.trains_in_16_bits else 12 + 2 * (state or 0)
        )
        moved = self._trained * each
        launches = len(self.task.trained_parameters()) if FUSED in chosen else 0
        return moved / (self.speeds.gb_s * 1e9) + launches * LAUNCH

    def _freeing(self, memory: Memory, is_half: bool) -> Memory:
        """With gradients freed in the backward pass; where they are of 16 bits, the first are stepped while
        nearly all activations are there.
        """
        sizes = [parameter.numel() for parameter in self.task.trained_parameters()]
        parts = max(1, sum(sizes) // chunk_size(sizes)) if is_half else gradient_parts(self.task, None)
        besides = memory.stepping if parts > 1 else 0
        return replace(memory, gradients=memory.gradients // parts, activations=memory.activations + besides)

    def _may_be_rounded(self) -> bool:
        """Whether trained weights are many, and could be kept in 16 bits."""
        training, name = self.run.training, self.run.optimizer.optimizer_name.lower()
        could = training.mixed_precision in ("no", "bf16") and not training.trains_in_16_bits
        all_weights = sum(parameter.numel() for parameter in self.task.parameters())
        return could and self._trained > MANY * all_weights and "schedulefree" not in name.replace("_", "")

    def _is_cached(self, option: str, chosen: frozenset[str]) -> bool:
        caching = self.run.caching
        return option in chosen or (caching.caches_latents if option == LATENTS else caching.caches_text)

    def _away(self, part: nn.Module, is_half: bool) -> int:
        return sum(_size(parameter, is_half) for parameter in part.parameters()) if self.leaves else 0

    def _float8_savings(self, chosen: frozenset[str]) -> int:
        parts = ("unet",) if self._is_cached(TEXT, chosen) and self.leaves else ("unet", "te")
        weights = [layer.weight for layer in frozen_layers(self.task, parts)]
        return sum(_size(weight, BF16 in chosen) - weight.numel() for weight in weights)

    @cached_property
    def _trained(self) -> int:
        return sum(parameter.numel() for parameter in self.task.trained_parameters())

    @cached_property
    def _adam_8bit(self) -> float | None:
        """Bytes of its state for a weight; None where bitsandbytes is not installed."""
        try:
            return state_per_weight(OptimizerOptions(optimizer_type="AdamW8bit"), self.session.device)
        except UserError:
            return None


_CACHES = (
    "cache_latents",
    "cache_latents_to_disk",
    "cache_text_encoder_outputs",
    "cache_text_encoder_outputs_to_disk",
)
_UNCACHED = {"skip_cache_check": False}


def propose(choices: Choices, room: int) -> Proposal | None:
    """The set of options with which a step takes no more than `room` bytes, in the least time; among sets
    that are as fast to within 1 %, the smallest. None when no set fits.
    """
    fitting = [
        (seconds, chosen)
        for chosen in subsets(choices.open())
        if choices.allowed(chosen)
        for peak, seconds in [choices.figures(chosen)]
        if peak <= room
    ]
    if not fitting:
        return None
    fastest = min(seconds for seconds, _ in fitting)
    near = [one for one in fitting if one[0] <= (1 + WORTH) * fastest]
    _, chosen = min(near, key=lambda one: (len(one[1]), one[0]))
    return Proposal(_prices(choices, chosen), *choices.figures(chosen), choices.figures(())[1])


def subsets(options: Collection[str]) -> list[tuple[str, ...]]:
    """All sets of options, the smallest first; within a set they keep their order."""
    return list(chain.from_iterable(combinations(options, count) for count in range(len(options) + 1)))


def _prices(choices: Choices, chosen: tuple[str, ...]) -> tuple[Price, ...]:
    prices = []
    for count, option in enumerate(chosen, 1):
        (peak, seconds), (less, time) = (
            choices.figures(chosen[: count - 1]),
            choices.figures(chosen[:count]),
        )
        prices.append(Price(option, peak - less, time / seconds))
    return tuple(prices)


def first_of(batch: Batch) -> Batch:
    """A batch of the first sample alone."""
    first = batch.with_tensors(_first)
    lists = {name: getattr(batch, name)[:1] for name in ("captions", "attributes", "names")}
    return dataclasses.replace(first, **lists)


def _first(tensor: Tensor) -> Tensor:
    return tensor[:1]


def _size(parameter: Tensor, is_half: bool) -> int:
    """Bytes of a frozen weight, in 16 bits if the run computes in them."""
    is_cast = is_half and parameter.dtype == torch.float32
    return parameter.nbytes // 2 if is_cast else parameter.nbytes
