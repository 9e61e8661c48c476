"""An exponential moving average (EMA) of the trained weights: steadier than the weights of any one step.

    average <- decay x average + (1 - decay) x weights,    decay = min(--ema_decay, (1 + n) / (10 + n))

after the n-th step, so that the first weights are soon forgotten (the rule of TensorFlow's
ExponentialMovingAverage and of latent-diffusion's LitEma). The average is kept in float32. Previews,
validation and results use it; a state holds it beside the weights, so that a run resumes exactly.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from library.models.swapping.blocks import SwappedBlocks
from library.options.averaging import AveragingOptions
from library.problems import UserError
from library.training.optimization.flat import flat_copy, places_in
from library.training.session import Session
from library.training.sharding.whole import Weights
from library.training.tasks.task import Task

PORTION = 2**24  # weights of 16 bits that are cast to float32 at once: 64 MiB


class Average:
    """The moving averages of some of a module's parameters."""

    def __init__(
        self,
        module: nn.Module,
        parameters: Iterable[nn.Parameter],
        decay: float,
        device: torch.device,
        *,
        swapped: SwappedBlocks | None = None,
        are_shares: bool = False,
    ) -> None:
        """device: where the averages are kept, the parameters' own or the CPU.
        swapped: blocks of the module that come and go; None: all stay.
        are_shares: whether the parameters are not the module's own, but share its memory.
        """
        self.are_shares = are_shares
        self.module, self.parameters, self.decay, self.updates = module, list(parameters), decay, 0
        self._swapped = swapped
        with self._masters():
            self.values = [p.detach().to(device, torch.float32, copy=True) for p in self.parameters]
        self._pinned: list[Tensor] | None = None
        self._copied: torch.cuda.Event | None = None
        if self.parameters and self.parameters[0].is_cuda and device.type == "cpu":
            # Pinned memory: only copies into it run beside the next step.
            self._pinned = [torch.empty_like(p, device="cpu", pin_memory=True) for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the weights after a step.

        No step waits for the copy to the CPU: it is mixed in at the next update, or when averages are used.
        """
        self.flush()
        self.updates += 1
        with self._masters():
            if self._pinned is None:
                self._blend([p.detach() for p in self.parameters])
                return
            for landing, parameter in zip(self._pinned, self.parameters, strict=True):
                landing.copy_(parameter, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()

    @torch.no_grad()
    def flush(self) -> None:
        """Mix in a copy that is still on its way to the CPU."""
        if self._copied is not None and self._pinned is not None:
            self._copied.synchronize()
            self._copied = None
            self._blend(self._pinned)

    @contextmanager
    def in_place(self, dtype: torch.dtype | None = None) -> Generator[None, None, None]:
        """Context manager; inside it the module has the averages in its parameters' places.

        dtype: the type the averages are cast to; None: the parameters' own. Where that is float32 on the
        averages' device, nothing is copied.

        The parameters are swapped, not their data: a parameter whose data changed its type for a moment would
        lose DDP's gradient hook, and processes would wait for each other for ever. Of weights that are shared
        out the values are swapped: FSDP does not see other parameters.
        """
        self.flush()
        pairs = list(zip(self.parameters, self.values, strict=True))
        if self.are_shares:
            with self._values_in_place(pairs):
                yield
            return
        away = [pair for pair in pairs if self._comes_and_goes(pair[0])]
        if away and dtype is None:  # they may be computed with: as the masters they come and go
            there = [pair for pair in pairs if not self._comes_and_goes(pair[0])]
            with self._values_in_place(away), self._in_places(there, None):
                yield
        else:
            with self._in_places(pairs, dtype):
                yield

    @contextmanager
    def _in_places(
        self, pairs: Iterable[tuple[nn.Parameter, Tensor]], dtype: torch.dtype | None
    ) -> Iterator[None]:
        """Context manager; inside it the module has these averages as its parameters."""
        shown = {
            parameter: nn.Parameter(
                value.to(
                    value.device if self._comes_and_goes(parameter) else parameter.device,
                    dtype or parameter.dtype,
                )
            )
            for parameter, value in pairs
        }
        places = [
            (owner, name, parameter)
            for owner in self.module.modules()
            for name, parameter in owner.named_parameters(recurse=False)
            if parameter in shown
        ]
        for owner, name, parameter in places:
            setattr(owner, name, shown[parameter])
        try:
            yield
        finally:
            for owner, name, parameter in places:
                setattr(owner, name, parameter)

    @contextmanager
    @torch.no_grad()
    def _values_in_place(self, pairs: Sequence[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
        """Context manager; inside it these parameters, or their masters, hold their averages. The weights are
        kept in main memory meanwhile.
        """
        parameters = [parameter for parameter, _ in pairs]
        with self._masters():
            kept = [parameter.detach().to("cpu", copy=True) for parameter in parameters]
            _set(parameters, (value for _, value in pairs))
        try:
            yield
        finally:
            with self._masters():
                _set(parameters, kept)

    def _masters(self) -> AbstractContextManager[None]:
        return nullcontext() if self._swapped is None else self._swapped.masters()

    def _comes_and_goes(self, parameter: nn.Parameter) -> bool:
        return self._swapped is not None and self._swapped.home_of(parameter) is not None

    def tensors(self) -> dict[str, Tensor]:
        """What a state must hold: the averages by their parameters' numbers, as in an optimizer's state, and
        the number of updates.
        """
        self.flush()
        numbered = {f"{number:05d}": value for number, value in enumerate(self.values)}
        return numbered | {"updates": torch.tensor(self.updates)}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned. Raises KeyError or RuntimeError when it is of other parameters."""
        for number, value in enumerate(self.values):
            value.copy_(tensors[f"{number:05d}"])
        self.updates = int(tensors["updates"])

    def restart(self) -> None:
        """Start anew from the weights as they are."""
        with self._masters():
            for value, parameter in zip(self.values, self.parameters, strict=True):
                value.copy_(parameter.detach())
        self.updates = 0

    def _blend(self, weights: list[Tensor]) -> None:
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for values, own in self._portions(weights):
            # Weights of 16 bits are cast some at a time, so that few float32 copies exist.
            torch._foreach_lerp_(values, own, share)

    def _portions(self, weights: list[Tensor]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Averages and weights in float32: all at once, or those of 16 bits in portions."""
        pairs = list(zip(self.values, weights, strict=True))
        if whole := [(value, weight) for value, weight in pairs if weight.dtype == torch.float32]:
            yield [value for value, _ in whole], [weight for _, weight in whole]
        values: list[Tensor] = []
        portion: list[Tensor] = []
        size = 0
        for value, weight in pairs:
            if weight.dtype == torch.float32:
                continue
            if portion and size + weight.numel() > PORTION:
                yield values, _in_float32(portion)
                values, portion, size = [], [], 0
            values.append(value)
            portion.append(weight)
            size += weight.numel()
        if portion:
            yield values, _in_float32(portion)


@torch.no_grad()
def _set(parameters: Iterable[nn.Parameter], values: Iterable[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _in_float32(tensors: list[Tensor]) -> list[Tensor]:
    return places_in(flat_copy(tensors, dtype=torch.float32), tensors)


def make_average(task: Task, options: AveragingOptions, session: Session, weights: Weights) -> Average | None:
    """The average of what a task trains; None without --use_ema. It starts from the checkpoint's own averages
    if there are any, else from the weights.

    weights: how the processes hold them.

    Raises UserError when the device of --ema_device is not there.
    """
    if not options.use_ema:
        return None
    if options.ema_device == "cuda" and session.device.type != "cuda":
        raise UserError.of("--ema_device cuda", f"this run is on the {session.device.type}", "leave it out")
    device = torch.device("cpu") if options.ema_device == "cpu" else session.device
    trained, swaps = weights.own(task.trained_parameters()), task.model.swap_plan.trains
    swapped = task.model.swapped if swaps else None
    average = Average(task, trained, options.decay, device, swapped=swapped, are_shares=weights.is_sharded)
    if weights.is_sharded:
        return average
    with task.model.masters():  # a placeholder has no place of its own
        trains = task.model.denoiser_part in task.trained_parts()
        count = _start_from_checkpoint(average, task) if trains else 0
    if count:
        session.say(f"the average starts from the checkpoint's own: {count} tensors")
    return average


def _start_from_checkpoint(average: Average, task: Task) -> int:
    """Copy the checkpoint's own averages of the denoiser. Returns how many there are."""
    found, updates = task.model.source_averages()
    # A parameter shares its storage with its tensor in part_weights, which has the name in the file.
    places = {
        tensor.data_ptr(): name for name, tensor in task.model.part_weights(task.model.denoiser_part).items()
    }
    count = 0
    for parameter, value in zip(average.parameters, average.values, strict=True):
        tensor = found.get(places.get(parameter.data_ptr(), ""))
        if tensor is not None and tensor.numel() == value.numel():
            value.copy_(tensor.reshape(value.shape))
            count += 1
    if count:
        average.updates = updates
    return count
