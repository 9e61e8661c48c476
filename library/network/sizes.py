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


def factorize(side: int, factor: int) -> tuple[int, int]:
    """Two factors of a layer's side, the smaller first, as LyCORIS finds them: `factor` and the rest where it
    divides the side, otherwise as near the root as `factor` allows; -1: as near as there are.
    """
    if factor > 0 and side % factor == 0:
        return min(factor, side // factor), max(factor, side // factor)
    small, large = 1, side
    while small < large:
        candidate = next(number for number in range(small + 1, side + 1) if side % number == 0)
        if candidate > factor > 0 or candidate + side // candidate > small + large:
            break
        small, large = candidate, side // candidate
    return min(small, large), max(small, large)
