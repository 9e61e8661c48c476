"""Randomness is a function: every draw comes from a generator made from (seed, purpose, keys).

No state is kept between draws, so a run gives the same numbers for any number of loader workers or processes
and after a resume at any step, and there is no generator state to save.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, *keys: int | str) -> int:
    """A 63-bit number that depends on every argument; the same on every machine and Python version."""
    text = "\x1f".join(map(str, (seed, purpose, *keys)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_random(seed: int, purpose: str, *keys: int | str) -> random.Random:
    """A Python generator, for shuffles, flips, crops and dropout."""
    return random.Random(derive_seed(seed, purpose, *keys))


def keyed_generator(seed: int, purpose: str, *keys: int | str) -> torch.Generator:
    """A torch generator on the CPU, for noise."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, purpose, *keys))
