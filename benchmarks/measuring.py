"""How figures are measured: as ratios to something measured in the same run, in turns; the median counts."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

PAIRS = 5


def say(name: str, **figures: float | int | str | None) -> None:
    """Print a benchmark's JSON line."""
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps({"benchmark": name, **rounded}), flush=True)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float, float]:
    """Medians of (ratio, our seconds, their seconds) over PAIRS pairs, measured in turns, so that a slow
    minute of the machine falls on both.
    """
    pairs = [(ours(), theirs()) for _ in range(PAIRS)]
    ratio = statistics.median(our / their for our, their in pairs)
    return ratio, *(statistics.median(column) for column in zip(*pairs, strict=True))
