"""Where blocks that come and go are kept: a GPU's memory beside pinned main memory, or for the CPU a store
that only counts. All that is different between the two is here, and small.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from library.problems import warn


class Arrival(Protocol):
    """A copy that may still be under way. CUDA's events are such."""

    def synchronize(self) -> None:
        """Wait on the host until it is there."""


class Store(Protocol):
    """Two kinds of memory, and copies between them. Buffers are flat: (bytes,) of uint8."""

    device: torch.device

    def main_buffer(self, size: int) -> Tensor:
        """New main memory of so many bytes."""

    def device_buffer(self, size: int) -> Tensor:
        """New memory of so many bytes on the device."""

    def copy(self, source: Tensor, target: Tensor) -> Arrival:
        """Start to copy a buffer into another of the same size, once all is done that computing was told to
        do until now: what reads or writes either of them. Copies follow one another in their order.
        """

    def wait(self, arrival: Arrival) -> None:
        """What computing is told to do from now on begins when the copy is there. The host does not wait."""


class CudaStore:
    """A GPU's memory, pinned main memory, and a stream for the copies beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._has_warned = False

    def main_buffer(self, size: int) -> Tensor:
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:  # the system limits it, by ulimit -l or, on Windows, to half the memory
            if not self._has_warned:
                reason = str(error).splitlines()[0]
                warn(f"--blocks_to_swap: main memory cannot be pinned, so steps take longer ({reason})")
                self._has_warned = True
            return torch.empty(size, dtype=torch.uint8)

    def device_buffer(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def copy(self, source: Tensor, target: Tensor) -> torch.cuda.Event:
        self._stream.wait_event(torch.cuda.current_stream(self.device).record_event())
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def wait(self, arrival: Arrival) -> None:
        assert isinstance(arrival, torch.cuda.Event)
        torch.cuda.current_stream(self.device).wait_event(arrival)


class _Done:
    """A copy that is there."""

    def synchronize(self) -> None:
        """Nothing is waited for."""


class CountingStore:
    """The CPU's memory twice: nothing is saved, but all is done and counted that a GPU's store does.

    device_bytes: of the buffers that stand for the device's memory.
    main_bytes: of those in main memory.
    loads: copies to the device so far.
    returns: copies back.
    """

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.device_bytes = self.main_bytes = self.loads = self.returns = 0
        self._on_device: set[int] = set()

    def main_buffer(self, size: int) -> Tensor:
        self.main_bytes += size
        return torch.empty(size, dtype=torch.uint8)

    def device_buffer(self, size: int) -> Tensor:
        self.device_bytes += size
        buffer = torch.empty(size, dtype=torch.uint8)
        self._on_device.add(buffer.untyped_storage().data_ptr())
        return buffer

    def copy(self, source: Tensor, target: Tensor) -> Arrival:
        comes = target.untyped_storage().data_ptr() in self._on_device
        self.loads += comes
        self.returns += not comes
        target.copy_(source)
        return _Done()

    def wait(self, arrival: Arrival) -> None:
        """Copies here are there at once."""


def make_store(device: torch.device) -> Store:
    """The store of a device."""
    return CudaStore(device) if device.type == "cuda" else CountingStore()
