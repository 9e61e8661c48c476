"""What can be read of a card without stopping it. Any reading may fail: it is then left out."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from library.training.pace.findings import Reading
from library.training.pace.shared_memory import lends_main_memory, shared_memory

if TYPE_CHECKING:
    import torch

_HEAT = 0x20 | 0x40  # software and hardware slow the card down for its temperature (nvml.h)
_GPU_TEMPERATURE, _SM_CLOCK = 0, 1  # of nvml.h


class Card(Protocol):
    """Something that computes, and tells how it is."""

    def read(self) -> Reading: ...


@dataclass(frozen=True)
class Health:
    """What NVIDIA's management library tells of a card; None: nothing.

    others: bytes that other processes have on it.
    is_hot, celsius, clock, top_clock: those of Reading.
    """

    others: int | None = None
    is_hot: bool = False
    celsius: int | None = None
    clock: int | None = None
    top_clock: int | None = None


class CudaCard:
    """The card that a run computes on."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._lends = device, lends_main_memory()
        self._shared = shared_memory(device)
        self._health = _health_of(device)

    def read(self) -> Reading:
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        health = self._health()
        shared = self._shared()
        return Reading(
            total=total,
            free=free,
            reserved=torch.cuda.memory_reserved(self._device),
            shared=None if shared is None else max(0, shared - _pinned()),
            others=health.others,
            lends=self._lends,
            is_hot=health.is_hot,
            celsius=health.celsius,
            clock=health.clock,
            top_clock=health.top_clock,
        )


def _pinned() -> int:
    """Bytes of main memory that this process keeps for copies to and from the card."""
    import torch

    with suppress(Exception):  # builds that do not tell
        return int(torch.cuda.host_memory_stats().get("allocated_bytes.current", 0))
    return 0


def _health_of(device: torch.device) -> Callable[[], Health]:
    """What tells of the card's health: NVIDIA's library, where its Python package (nvidia-ml-py) is."""
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        # By its UUID: CUDA may count the cards in another order, or hide some.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        reader = NvmlHealth(pynvml, handle)
        reader.read()
    except Exception:  # not installed, another maker's card, a part of one, an old driver
        return Health
    return reader.read


class NvmlHealth:
    """The health of a card as NVIDIA's library tells it."""

    def __init__(self, nvml: object, handle: object, own: int | None = None) -> None:
        """nvml: the module pynvml. handle: its own of the card. own: this process's number."""
        self._nvml, self._handle, self._own = nvml, handle, own or os.getpid()

    def read(self) -> Health:
        """What it tells now; what it does not know of this card is left out."""
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # drivers before 535 have only this
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return Health(
            others=self._others(),
            is_hot=bool((reasons or 0) & _HEAT),
            celsius=self._ask("nvmlDeviceGetTemperature", _GPU_TEMPERATURE),
            clock=self._ask("nvmlDeviceGetClockInfo", _SM_CLOCK),
            top_clock=self._ask("nvmlDeviceGetMaxClockInfo", _SM_CLOCK),
        )

    def _ask(self, name: str, *more: int) -> int | None:
        with suppress(Exception):
            return int(getattr(self._nvml, name)(self._handle, *more))
        return None

    def _others(self) -> int | None:
        """Bytes of other processes; None where their numbers or sizes are not told, as on Windows, or are not
        those that this process knows, as in a container.
        """
        with suppress(Exception):
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)  # type: ignore[attr-defined]
            sizes = {process.pid: process.usedGpuMemory for process in found}
            if self._own in sizes and None not in sizes.values():
                return sum(size for pid, size in sizes.items() if pid != self._own)
        return None
