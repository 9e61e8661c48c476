"""What the watch finds, and the one line that says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GB = 2**30
Sign = Literal["spill", "neighbour", "heat", "data", "slow"]
# Where Windows is told to refuse memory that the card does not have, since driver 546.01.
POLICY = "in the NVIDIA Control Panel set 'CUDA - Sysmem Fallback Policy' to 'Prefer No Sysmem Fallback'"


@dataclass(frozen=True)
class Reading:
    """A look at the card. Bytes; None: this machine does not tell.

    total: of the card.
    free: of it, for any process.
    reserved: by this process's allocator.
    shared: main memory that the system lends to this process's work on the card, without its own buffers.
    others: that other processes have on the card.
    lends: whether the system lends main memory when the card is full (Windows, WSL).
    is_hot: whether the card runs slower because of its temperature.
    celsius: its temperature.
    clock, top_clock: in MHz, now and at most.
    """

    total: int
    free: int
    reserved: int
    shared: int | None = None
    others: int | None = None
    lends: bool = False
    is_hot: bool = False
    celsius: int | None = None
    clock: int | None = None
    top_clock: int | None = None


@dataclass(frozen=True)
class Finding:
    """Something that makes a run crawl.

    severity: by which findings with one sign are compared; larger is worse.
    ratio: how many times longer a batch takes than it used to; None when that is not known.
    now, before: seconds of a batch; None where ratio is.
    amount: of what the sign is about: bytes in main memory, bytes of other processes, seconds of waiting for
        a batch.
    """

    sign: Sign
    severity: float
    reading: Reading
    ratio: float | None = None
    now: float | None = None
    before: float | None = None
    amount: float = 0.0


@dataclass(frozen=True)
class Remedies:
    """What this run could do about a finding, the cheapest first choice of each.

    memory: against a full card.
    data: against a loader that is too slow.
    program: the Python that runs, for the driver's settings.
    """

    memory: str
    data: str
    program: str


def line(finding: Finding, remedies: Remedies) -> str:
    """The line for users: what is seen; what to do."""
    reading = finding.reading
    room = f"{_gb(reading.free)} of {_gb(reading.total)} GB is free"
    saw, fix = {
        "spill": lambda: (_spill(finding, room), _against_spill(reading, remedies)),
        "neighbour": lambda: (
            f"other programs took {_gb(finding.amount)} GB of the GPU since the start ({room})",
            "end them, or let one run at a time",
        ),
        "heat": lambda: (
            f"the GPU is too hot and slows down{_heat(reading)}",
            "clean its fans, give it air, or lower its power limit (nvidia-smi -pl)",
        ),
        "data": lambda: (
            f"the GPU waits {_seconds(finding.amount)} for each batch and computes {_seconds(finding.now)}",
            remedies.data,
        ),
        "slow": lambda: (f"nothing here tells why ({room})", _against_slowness(reading, remedies)),
    }[finding.sign]()
    if finding.ratio is not None and finding.ratio >= 1.5 and finding.sign != "data":
        saw = f"a batch takes {_seconds(finding.now)}, earlier ones {_seconds(finding.before)}: {saw}"
    return f"{saw}; {fix}"


def _spill(finding: Finding, room: str) -> str:
    if not finding.amount:
        return f"the GPU is full ({room}) and seems to go on in main memory"
    return f"{_gb(finding.amount)} GB that the GPU has no room for are in main memory ({room})"


def _against_spill(reading: Reading, remedies: Remedies) -> str:
    policy = f", or {POLICY} for {remedies.program}" if reading.lends else ""
    return f"{remedies.memory}{policy}"


def _against_slowness(reading: Reading, remedies: Remedies) -> str:
    if reading.free < TIGHT:
        return f"the GPU is nearly full: {remedies.memory}"
    return "look for other programs (nvidia-smi), the power plan, and batteries that run low"


TIGHT = 300 * 2**20  # bytes free on a card that is full


def _heat(reading: Reading) -> str:
    told = [f"{reading.celsius} °C"] if reading.celsius is not None else []
    if reading.clock is not None and reading.top_clock is not None:
        told.append(f"{reading.clock / 1000:.1f} of {reading.top_clock / 1000:.1f} GHz")
    return f" ({', '.join(told)})" if told else ""


def _gb(size: float) -> str:
    return f"{size / GB:.1f}"


def _seconds(seconds: float | None) -> str:
    """`41 s`, `2.1 s`, `0.35 s`."""
    value = seconds or 0.0
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"
