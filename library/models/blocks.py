"""How networks number the blocks of a U-Net, for settings that each block has of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockSpans:
    """The numbers of a U-Net's blocks, 0 to total - 1, as sd-scripts counts.

    down, mid, up: those of the three parts. Numbers in none of them are of layers that no network stands
    beside.
    """

    total: int
    down: range
    mid: range
    up: range
