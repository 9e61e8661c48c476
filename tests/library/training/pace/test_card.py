"""What is read of a card and of the system, as far as it can be tried without one."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest
import torch

from library.training.pace.card import Health, NvmlHealth
from library.training.pace.limit import limit_memory, share_of_card
from library.training.pace.shared_memory import _VideoMemory, gtt_bytes, lends_main_memory

GB = 2**30


@pytest.mark.parametrize(
    ("system", "version", "lends"),
    [
        ("Windows", "", True),
        ("Linux", "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@941d701f84f1)", True),
        ("Linux", "Linux version 6.8.0-45-generic (buildd@lcy02)", False),
        ("Darwin", "", False),
    ],
)
def test_windows_and_wsl_lend_main_memory(system: str, version: str, lends: bool) -> None:
    assert lends_main_memory(system, version) == lends


def test_a_run_may_take_what_is_free_but_for_a_margin() -> None:
    assert share_of_card(11 * GB, 12 * GB) == pytest.approx((11 * 1024 - 600) / (12 * 1024))
    assert share_of_card(22 * GB, 24 * GB) == pytest.approx((22 * 1024 - 700) / (24 * 1024))
    assert share_of_card(0, 12 * GB) == 0


def test_the_allocator_is_limited_where_memory_is_lent_unless_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 * GB, 8 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GB // 2)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: limits.append(share)
    )
    monkeypatch.setattr("library.training.pace.limit.lends_main_memory", lambda: True)
    card = torch.device("cuda", 0)
    assert limit_memory(card, allow_shared_memory=True) is None
    assert limit_memory(torch.device("cpu"), allow_shared_memory=False) is None
    assert limits == []
    limit_memory(card, allow_shared_memory=False)
    assert limits == [pytest.approx((7.5 * 1024 - 600) / (8 * 1024))]
    monkeypatch.setattr("library.training.pace.limit.lends_main_memory", lambda: False)
    assert limit_memory(card, allow_shared_memory=False) is None


def test_linux_tells_what_amds_driver_keeps_in_main_memory() -> None:
    card = "drm-driver:\tamdgpu\ndrm-client-id:\t{}\ndrm-memory-vram:\t900 KiB\ndrm-memory-gtt:\t{} KiB\n"
    other = "pos:\t0\nflags:\t02\n"
    assert gtt_bytes([card.format(7, 2048), other, card.format(7, 2048), card.format(9, 1024)]) == 3 * 2**20
    assert gtt_bytes([other]) is None


def test_windows_structure_is_as_large_as_its_headers_say() -> None:
    assert (_VideoMemory.usage.offset, ctypes.sizeof(_VideoMemory)) == (24, 56)


class Nvml:
    """pynvml of a hot card in an old driver, which has no temperature to tell."""

    def __init__(self, *processes: tuple[int, int | None]) -> None:
        self.processes = [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in processes]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:
        return 0x20 | 0x4

    def nvmlDeviceGetClockInfo(self, handle: object, kind: int) -> int:
        return {1: 1100}[kind]

    def nvmlDeviceGetMaxClockInfo(self, handle: object, kind: int) -> int:
        return {1: 1900}[kind]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:
        return self.processes


@pytest.mark.parametrize(
    ("processes", "others"),
    [
        (((10, GB), (11, 2 * GB), (12, 3 * GB)), 5 * GB),
        (((11, 2 * GB),), None),  # in a container, with numbers of another world
        (((10, None), (11, None)), None),  # Windows
    ],
)
def test_nvidias_library_tells_of_heat_and_of_other_processes(
    processes: tuple[tuple[int, int | None], ...], others: int | None
) -> None:
    health = NvmlHealth(Nvml(*processes), None, own=10).read()
    assert health == Health(others, is_hot=True, celsius=None, clock=1100, top_clock=1900)
