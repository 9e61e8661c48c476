"""SwappedBlocks: lets blocks of a model come and go while it is trained and draws.

A block's weights wait in one buffer of main memory. When the block is called, they are copied into one of a
few buffers on the device, unless they are there, and the copy of the block that is probably next begins. The
parameters stay the same objects: where their values lie changes.

That is right for the backward pass only where blocks are recomputed in it (gradient checkpointing): each is
then called anew before its gradients are computed, and they are all there before the next block is called.
Otherwise autograd would keep places in a buffer, find another block's values there, and say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from library.models.compiling import call_before
from library.models.swapping.order import Order
from library.models.swapping.plan import SwapPlan, aligned, block_bytes
from library.models.swapping.stores import Arrival, Store


@dataclass
class _Place:
    """Where a parameter's values lie in its block's buffer."""

    parameter: nn.Parameter
    start: int
    shape: torch.Size
    strides: tuple[int, ...]
    nothing: Tensor  # what the parameter holds while its block is away

    def within(self, buffer: Tensor) -> Tensor:
        """The values in a buffer, in the strides that the parameter began with: a view."""
        size = self.parameter.numel() * self.parameter.dtype.itemsize
        flat = buffer.narrow(0, self.start, size).view(self.parameter.dtype)
        return flat.as_strided(self.shape, self.strides)


@dataclass
class _Buffer:
    """One of the ring's buffers on the device.

    block: the number of the block in it; None: none.
    arrival: of the copy that filled it.
    """

    memory: Tensor
    block: int | None = None
    arrival: Arrival | None = None


@dataclass
class _Block:
    """A block's weights.

    master: its buffer in main memory.
    returned: its copy back into it, which may still be under way.
    is_changed: whether the values on the device are newer than the master's.
    """

    module: nn.Module
    places: list[_Place]
    master: Tensor
    returned: Arrival | None = None
    is_changed: bool = False

    def show(self, buffer: Tensor | None) -> None:
        """Let the parameters have their values in a buffer; None: they have none."""
        for place in self.places:
            place.parameter.data = place.nothing if buffer is None else place.within(buffer)


@dataclass
class SwappedBlocks:
    """The blocks of a plan, which from now on come and go.

    store: where they are kept.
    plan: which they are.
    leaving: called with the number of the block that was used last before another one is used, while its
        weights are still there.
    """

    store: Store
    plan: SwapPlan
    leaving: list[Callable[[int], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._nothing: dict[torch.dtype, Tensor] = {}
        self._blocks = [self._take(block) for block in self.plan.blocks]
        self._homes = {place.parameter: n for n, block in enumerate(self._blocks) for place in block.places}
        count, size = min(self.plan.ring, len(self._blocks)), self.plan.buffer_bytes()
        # The one that was used last stands last.
        self._ring = [_Buffer(self.store.device_buffer(size)) for _ in range(count)]
        self._order = Order(len(self._blocks))
        self._current: int | None = None
        self._shows_masters = False

    def attach(self) -> None:
        """From now on the blocks' weights come when they are called. What is compiled is compiled before."""
        for number, block in enumerate(self._blocks):
            call_before(block.module, partial(self._use, number))

    @contextmanager
    def masters(self) -> Iterator[None]:
        """Context manager; inside it all weights can be read and written, in main memory, and no block can be
        computed with. It can be entered again inside itself.
        """
        if self._shows_masters:
            yield
            return
        self._leave()
        for buffer in self._ring:
            self._empty(buffer)
        for block in self._blocks:
            if block.returned is not None:
                block.returned.synchronize()
            block.show(block.master)
        self._shows_masters = True
        try:
            yield
        finally:
            self._shows_masters = False
            for block in self._blocks:
                block.show(None)

    def home_of(self, parameter: nn.Parameter) -> int | None:
        """The number of the block that a parameter comes and goes with; None: it stays."""
        return self._homes.get(parameter)

    def is_away(self, tensor: Tensor) -> bool:
        """Whether a tensor stands for weights whose block is away."""
        storage = tensor.untyped_storage().data_ptr()
        return any(storage == nothing.untyped_storage().data_ptr() for nothing in self._nothing.values())

    def changed(self, parameters: Iterable[nn.Parameter]) -> None:
        """Tell that these have new values, which the masters lack: those of blocks among them belong to the
        one that was called last.
        """
        for number in {self._homes[parameter] for parameter in parameters if parameter in self._homes}:
            assert number == self._current, "weights are stepped while their block is away"
            self._blocks[number].is_changed = True

    def _take(self, module: nn.Module) -> _Block:
        """Move a block's weights to main memory."""
        block = _Block(module, [], self.store.main_buffer(block_bytes(module)))
        start = 0
        for parameter in module.parameters():
            nothing = self._nothing_of(parameter.dtype).expand(parameter.shape)
            strides = torch.empty_like(parameter, device="meta").stride()  # dense, in the same order
            place = _Place(parameter, start, parameter.shape, strides, nothing)
            place.within(block.master).copy_(parameter.data)
            parameter.data = nothing
            block.places.append(place)
            start += aligned(parameter.numel() * parameter.dtype.itemsize)
        return block

    def _nothing_of(self, dtype: torch.dtype) -> Tensor:
        """One NaN: as the values of a parameter it takes no memory, cannot be written to, and spoils whatever
        reads it.
        """
        if dtype not in self._nothing:
            self._nothing[dtype] = torch.full((), torch.nan, device=self.store.device).to(dtype)
        return self._nothing[dtype]

    def _use(self, number: int) -> None:
        """Have a block's weights on the device for what is computed from now on, and fetch the next one's."""
        assert not self._shows_masters, "blocks are computed with while their masters are looked at"
        if number != self._current:
            self._leave()
        buffer = self._fetch(number)
        self._current = number
        if buffer.arrival is not None:
            self.store.wait(buffer.arrival)
            buffer.arrival = None
            self._blocks[number].show(buffer.memory)
        following = self._order.use(number)
        if following is not None and len(self._ring) > 1:
            self._fetch(following)
        self._ring.sort(key=lambda one: one.block == number)

    def _leave(self) -> None:
        if self._current is not None:
            for tell in self.leaving:
                tell(self._current)
            self._current = None

    def _fetch(self, number: int) -> _Buffer:
        """The buffer that a block is in, or is copied to."""
        for buffer in self._ring:
            if buffer.block == number:
                return buffer
        buffer = next(one for one in self._ring if one.block is None or one.block != self._current)
        self._empty(buffer)
        buffer.block = number
        # Whatever computed with the block that was here has been started before: the copy waits for it.
        buffer.arrival = self.store.copy(self._blocks[number].master, self._within(buffer, number))
        return buffer

    def _empty(self, buffer: _Buffer) -> None:
        """Take a block off the device; its changed weights go back first."""
        if buffer.block is None:
            return
        block = self._blocks[buffer.block]
        if block.is_changed:
            block.returned = self.store.copy(self._within(buffer, buffer.block), block.master)
            block.is_changed = False
        block.show(None)
        buffer.block = buffer.arrival = None

    def _within(self, buffer: _Buffer, number: int) -> Tensor:
        """The part of a buffer that a block takes."""
        return buffer.memory.narrow(0, 0, self._blocks[number].master.numel())
