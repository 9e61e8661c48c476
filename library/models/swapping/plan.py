"""Which blocks come and go, and how many bytes that takes on the device and in main memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

# Of each tensor in a buffer, as torch's own allocator aligns tensors on GPUs: with less, cuBLAS may choose
# another kernel, and results other bits.
ALIGNMENT = 256
RING = 2  # buffers: one is computed with while the other is filled

TypeOf = Callable[[nn.Parameter], torch.dtype]


def own_type(parameter: nn.Parameter) -> torch.dtype:
    """The type that a parameter has now."""
    return parameter.dtype


def aligned(size: int) -> int:
    """Bytes that a tensor of so many takes in a buffer."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class SwapPlan:
    """Which blocks come and go.

    blocks: those that do, in order of execution; empty: all stay.
    ring: how many buffers they take turns in.
    """

    blocks: tuple[nn.Module, ...] = ()
    ring: int = RING

    def __bool__(self) -> bool:
        return bool(self.blocks)

    @property
    def trains(self) -> bool:
        """Whether something in the blocks is trained, so that they also go back to main memory."""
        return any(parameter.requires_grad for block in self.blocks for parameter in block.parameters())

    def freed_bytes(self, type_of: TypeOf = own_type) -> int:
        """Bytes of weights that are no longer on the device all the time."""
        return sum(_bytes(p, type_of) for block in self.blocks for p in block.parameters())

    def buffer_bytes(self, type_of: TypeOf = own_type) -> int:
        """Bytes of one buffer: each holds any of the blocks."""
        return max((block_bytes(block, type_of) for block in self.blocks), default=0)

    def ring_bytes(self, type_of: TypeOf = own_type) -> int:
        """Bytes of all buffers on the device."""
        return min(self.ring, len(self.blocks)) * self.buffer_bytes(type_of)

    def main_bytes(self, type_of: TypeOf = own_type) -> int:
        """Bytes of main memory that the blocks wait in."""
        return sum(block_bytes(block, type_of) for block in self.blocks)


def block_bytes(block: nn.Module, type_of: TypeOf = own_type) -> int:
    """Bytes that a block's weights take in one buffer."""
    return sum(aligned(_bytes(parameter, type_of)) for parameter in block.parameters())


def _bytes(parameter: nn.Parameter, type_of: TypeOf) -> int:
    return parameter.numel() * type_of(parameter).itemsize


def plan_swap(blocks: Sequence[nn.Module], count: int, ring: int = RING) -> SwapPlan:
    """The plan that lets `count` of some blocks come and go: the largest ones, spread evenly among those of
    one size, so that there is time to fetch each.

    blocks: all that may, in order of execution.
    count: above their number: all.
    """
    by_size: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        by_size.setdefault(sum(parameter.numel() for parameter in block.parameters()), []).append(number)
    chosen: list[int] = []
    for size in sorted(by_size, reverse=True):
        alike, wanted = by_size[size], count - len(chosen)
        if wanted >= len(alike):
            chosen += alike
        else:
            chosen += [alike[(2 * place + 1) * len(alike) // (2 * wanted)] for place in range(wanted)]
            break
    return SwapPlan(tuple(blocks[number] for number in sorted(chosen)), ring)
