"""Large blocks that are freed go back to the system, also between small ones that stay."""

from __future__ import annotations

import subprocess
import sys

import pytest

from library.heap import return_freed_memory

PROGRAM = """
import ctypes, re, sys
sys.path.insert(0, {root!r})
from library.heap import return_freed_memory
if {tries}:
    return_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def taken():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
c.free(c.malloc(30 << 20))  # the bound is now this
before, large = taken(), []
for _ in range(10):
    large.append(c.malloc(8 << 20))
    ctypes.memset(large[-1], 1, 8 << 20)
    ctypes.memset(c.malloc(100_000), 1, 100_000)  # a small one that stays
for block in large:
    c.free(block)
print(taken() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is for glibc")
def test_what_is_freed_between_what_stays_goes_back() -> None:
    from commands import ROOT

    def kept(tries: bool) -> int:
        """Megabytes."""
        code = PROGRAM.format(root=str(ROOT), tries=tries)
        return int(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        )

    assert kept(True) < 15 < 60 < kept(False)


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    return_freed_memory()
