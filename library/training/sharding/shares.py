"""Which rows of a weight each process has, and how they come together again.

FSDP2 cuts a weight along its first dimension into pieces of equal size, as torch.chunk does: the last ones
may be shorter, or empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Share:
    """This process's rows of a weight.

    weight: the parameter as FSDP2 keeps it.
    own: the same rows as an ordinary parameter, in the same memory: what the optimizer steps.
    shape: of the whole weight.
    first: the first of its rows.
    """

    weight: nn.Parameter
    own: nn.Parameter
    shape: torch.Size
    first: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + len(self.own))

    def of(self, whole: Tensor) -> Tensor:
        """These rows of a tensor of the weight's shape."""
        return whole[self.rows]


def share_of(weight: nn.Parameter, rank: int, processes: int) -> Share:
    """The share that a process has of a parameter that FSDP2 cut up."""
    assert isinstance(weight.data, DTensor)
    local = weight.data.to_local()
    own = nn.Parameter(local, requires_grad=weight.requires_grad)
    first = min(rank * rows_each(weight.shape, processes), weight.shape[0])
    return Share(weight, own, weight.shape, first)


def rows_each(shape: torch.Size, processes: int) -> int:
    """The rows in a full piece of a weight."""
    return -(-shape[0] // processes)


def is_shared_out(tensor: object) -> bool:
    """Whether it is a parameter of which each process has a share."""
    return isinstance(tensor, nn.Parameter) and isinstance(tensor.data, DTensor)
