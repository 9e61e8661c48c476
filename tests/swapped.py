"""Blocks that come and go in tests: a chain of them, and what refuses to use those that are away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from library.models.swapping.blocks import SwappedBlocks
from library.models.swapping.plan import RING, plan_swap
from library.models.swapping.stores import CountingStore


class Block(nn.Module):
    """A residual block with a convolution, whose weight may lie in channels_last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv(x)
        return x + self.linear(self.norm(x.movedim(1, -1)).tanh()).movedim(-1, 1)


class Chain(nn.Module):
    """Blocks, each recomputed in the backward pass."""

    def __init__(self, count: int, width: int = 6, *, recomputes: bool = True) -> None:
        super().__init__()
        self.recomputes = recomputes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(Block(width) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recomputes else block(x)
        return x


def swap(blocks: Iterable[nn.Module], *, ring: int = RING) -> tuple[SwappedBlocks, CountingStore]:
    """All of the blocks come and go from now on."""
    store, found = CountingStore(), list(blocks)
    swapped = SwappedBlocks(store, plan_swap(found, len(found), ring))
    swapped.attach()
    return swapped, store


def resident(swapped: SwappedBlocks, blocks: Iterable[nn.Module]) -> list[int]:
    """The numbers of the blocks whose weights can be computed with."""
    return [n for n, block in enumerate(blocks) if not any(map(swapped.is_away, block.parameters()))]


class RefusesAway(TorchDispatchMode):
    """Inside it, computing with what is away is an error."""

    def __init__(self, swapped: SwappedBlocks) -> None:
        super().__init__()
        self.swapped = swapped

    def __torch_dispatch__(self, func: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((given, named)) if isinstance(leaf, Tensor)]
        if not func.is_view and any(map(self.swapped.is_away, tensors)):
            raise AssertionError(f"{func} is given what is away")
        return func(*given, **(named or {}))
