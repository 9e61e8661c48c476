"""How large a network's modules are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How large a module is. There is no module of rank 0.

    rank: its inner width.
    alpha: what it counts, in units of the rank: its scale is alpha / rank; 0 means as the rank.
    """

    rank: int
    alpha: float


@dataclass(frozen=True)
class Sizes:
    """How large the modules of a block are.

    linear: those of linear layers and 1x1 convolutions.
    conv: those of larger convolutions.
    """

    linear: Size
    conv: Size


NOTHING = Size(0, 0.0)
