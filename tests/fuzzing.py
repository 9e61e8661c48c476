"""Random inputs for as long as one likes: FUZZ_SECONDS=600 pytest -m long tests/... runs each trial for ten
minutes instead of one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

T = TypeVar("T")
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
EXAMPLES_A_ROUND = 50  # a round that ends early would draw otherwise than it began; so it ends late


def fuzz(trial: Callable[[T], object], examples: st.SearchStrategy[T]) -> None:
    """Runs a trial on examples until the time is over, in rounds with seeds of their own. Prints how many."""
    count, end, seed = 0, time.monotonic() + SECONDS, random.randrange(2**32)
    while time.monotonic() < end:

        @settings(
            max_examples=EXAMPLES_A_ROUND,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(examples)
        def once(example: T) -> None:
            nonlocal count
            count += 1
            trial(example)

        seeded(seed + count)(once)()
    print(f"{count} examples from seed {seed}")
    assert count
