"""What benchmarks/gpu.py measures with: its run, its sections, times and memory of a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.measuring import PAIRS, say, seconds

LIMIT = 460.0  # seconds for everything
TURN = 0.7  # seconds of steps that are measured at once
SIDES = {"sd1": 512, "sdxl": 1024}  # pixels
# TFLOP an image, counted from the published configurations. Training: forward and backward, recomputation
# included; LoRAs of rank 16 on linear and 1x1 layers.
TFLOP = {
    "sd1": {
        "forward": 0.803,
        "encoding": 1.1,
        "LoRA": 1.747,
        "LoRA, checkpointing": 2.419,
        "full": 2.407,
        "full, checkpointing": 3.002,
    },
    "sdxl": {
        "forward": 6.761,
        "encoding": 4.9,
        "LoRA": 14.35,
        "LoRA, checkpointing": 20.76,
        "full": 20.23,
        "full, checkpointing": 25.44,
    },
}
NAMES = {"sd1": "SD 1.5", "sdxl": "SDXL"}


@dataclass
class Bench:
    """One run of this script.

    device: what is measured.
    smoke: try the script only: tiny models, a step each.
    peak: TFLOP/s of a large bf16 matrix product on this device.
    limit: seconds for everything.
    rows: what was found.
    """

    device: torch.device
    smoke: bool
    peak: float = 0.0
    limit: float = LIMIT
    rows: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - (time.monotonic() - self.began)

    def add(self, what: str, family: str, batch: int, rate: float, tflop: float, **more: Any) -> None:
        """Note and print what was measured.

        rate: batches a second.
        tflop: of one image.
        """
        images = rate * batch
        row = {"what": what, "model": NAMES[family], "batch": batch, "batches_per_second": rate}
        row |= {"images_per_second": images, **more}
        if not self.smoke:  # tiny models do other work
            row["share_of_peak"] = images * tflop / self.peak
        self.rows.append(row)
        say("gpu", **row)


@dataclass(frozen=True)
class Section:
    """A part of the run.

    what: is measured.
    budget: seconds that it may take; it is left out when less than half of them are left.
    work: measures.
    """

    what: str
    family: str
    budget: float
    work: Callable[[Bench, Section], None]
    words: tuple[object, ...] = ()
    batches: tuple[int, ...] = (1, 4, 8)


def in_turns(bench: Bench, works: list[Callable[[], object]]) -> list[float]:
    """Times a second of each, the medians over PAIRS turns. The first round only warms up."""
    turns = [[timed(bench, work) for work in works]]
    if not bench.smoke:
        times = max(1, round(TURN / max(timed(bench, work) for work in works)))
        turns = [[timed(bench, work, times) / times for work in works] for _ in range(PAIRS)]
    return [1 / statistics.median(column) for column in zip(*turns, strict=True)]


def timed(bench: Bench, work: Callable[[], object], times: int = 1) -> float:
    """Seconds of working so many times, until the device has done it."""

    def repeat() -> None:
        for _ in range(times):
            work()
        wait(bench)

    wait(bench)
    return seconds(repeat)


def peak_memory(bench: Bench, work: Callable[[], object], beside: int = 0) -> float | None:
    """GiB on the device while working, twice, for the second time has the optimizer's state; without what is
    there for others. None on the CPU.
    """
    if bench.device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        work()
    wait(bench)
    return (torch.cuda.max_memory_allocated() - beside) / 2**30


def wait(bench: Bench) -> None:
    """Wait until the device is idle."""
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
