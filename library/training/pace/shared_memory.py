"""Main memory that the system lends to a card: whether it does, and how much this process has of it.

NVIDIA's drivers for Windows (since 536.40), and WSL with them, go on in main memory when the card is full. A
run is then many times slower. Windows was not there to try any of this on.
"""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Reader = Callable[[], int | None]
_NON_LOCAL = 1  # D3DKMT_MEMORY_SEGMENT_GROUP_NON_LOCAL: main memory
_GTT = re.compile(r"^drm-(?:resident|memory)-gtt:\s*(\d+) KiB", re.M)
_CLIENT = re.compile(r"^drm-client-id:\s*(\d+)", re.M)


def lends_main_memory(system: str | None = None, version: str | None = None) -> bool:
    """Whether the system lends main memory to a card that is full.

    system, version: as platform.system() and /proc/version have them; None: those of this machine.
    """
    system = platform.system() if system is None else system
    if system == "Windows":
        return True
    if system != "Linux":
        return False
    if version is None:
        with suppress(OSError):
            version = Path("/proc/version").read_text(encoding="utf-8")
    return "microsoft" in (version or "").lower()


def shared_memory(device: torch.device) -> Reader:
    """What tells how many bytes of main memory this process has on a card, or None where the system does not
    say.
    """
    import torch

    with suppress(Exception):
        if sys.platform == "win32":
            return _WindowsReader(device.index or 0).read
        if torch.version.hip:
            return _amd_memory
    return lambda: None


class _OpenAdapter(ctypes.Structure):
    """D3DKMT_OPENADAPTERFROMLUID."""

    _fields_ = [("low", ctypes.c_uint32), ("high", ctypes.c_int32), ("adapter", ctypes.c_uint32)]


class _VideoMemory(ctypes.Structure):
    """D3DKMT_QUERYVIDEOMEMORYINFO; no process is this one."""

    _fields_ = [
        ("process", ctypes.c_void_p),
        ("adapter", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("budget", ctypes.c_uint64),
        ("usage", ctypes.c_uint64),
        ("reservation", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("physical_adapter", ctypes.c_uint32),
    ]


class _WindowsReader:
    """Asks Windows' graphics kernel, which takes microseconds; its performance counters take far longer."""

    def __init__(self, index: int) -> None:
        """index: of the card, as CUDA counts. Raises OSError and the like where something is not there."""
        self._library = ctypes.CDLL("gdi32.dll")
        place = _OpenAdapter(*_luid(index))
        if self._library.D3DKMTOpenAdapterFromLuid(ctypes.byref(place)):
            raise OSError("the card's adapter cannot be opened")
        self._adapter = place.adapter

    def read(self) -> int | None:
        asked = _VideoMemory(adapter=self._adapter, group=_NON_LOCAL)
        if self._library.D3DKMTQueryVideoMemoryInfo(ctypes.byref(asked)):
            return None
        return int(asked.usage)


def _luid(index: int) -> tuple[int, int]:
    """Windows' name for a card that CUDA counts as `index`: its low and high half."""
    cuda = ctypes.CDLL("nvcuda.dll")
    card, mask = ctypes.c_int(), ctypes.c_uint()
    luid = (ctypes.c_char * 8)()
    if cuda.cuDeviceGet(ctypes.byref(card), index) or cuda.cuDeviceGetLuid(luid, ctypes.byref(mask), card):
        raise OSError("CUDA does not tell the card's name")
    return int.from_bytes(luid.raw[:4], "little"), int.from_bytes(luid.raw[4:], "little", signed=True)


def _amd_memory() -> int | None:
    """By the files that Linux has on what this process keeps open."""
    texts = []
    for path in Path("/proc/self/fdinfo").iterdir():
        with suppress(OSError):
            texts.append(path.read_text(encoding="utf-8"))
    return gtt_bytes(texts)


def gtt_bytes(texts: list[str]) -> int | None:
    """Bytes of main memory by the texts of fdinfo files; a client that is open twice counts once. None where
    none of them tells. The format is that of drm-usage-stats in Linux' documentation.
    """
    found: dict[str, int] = {}
    for text in texts:
        sizes = [int(size) * 1024 for size in _GTT.findall(text)]
        if sizes:
            client = _CLIENT.search(text)
            found[client[1] if client else str(len(found))] = max(sizes)
    return sum(found.values()) if found else None
