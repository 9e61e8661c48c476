"""How networks number the blocks of a U-Net, for settings that each block has of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockSpans:
    """The numbers of a U-Net's blocks, 0 to total - 1, as sd-scripts counts.

    total: of all blocks.
    down, mid, up: the numbers of each section. The rest belong to layers that networks are not attached to.
    """

    total: int
    down: range
    mid: range
    up: range
