"""Rotations in blocks: the maths of OFT, OFTv2 and BOFT.

    Q = A - A^T,  R = (I + Q)(I - Q)^-1  (Cayley),  x R block by block

All are computed in float32 whatever the type of a step is: half precision would be no rotation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def in_float32(device: torch.device) -> Iterator[None]:
    """Context manager; inside it there is no autocast."""
    with torch.autocast(device.type, enabled=False):
        yield


def skew(blocks: Tensor) -> Tensor:
    """A - A^T of each block: (..., b, b), float32."""
    blocks = blocks.float()
    return blocks - blocks.mT


def skew_of_triangles(triangles: Tensor) -> Tensor:
    """U - U^T of each row, U being strictly upper triangular and filled row by row: (n, b (b - 1) / 2) ->
    (n, b, b), float32.
    """
    size = side_of_triangle(triangles.shape[1])
    rows, columns = torch.triu_indices(size, size, 1, device=triangles.device)
    upper = triangles.new_zeros((len(triangles), size, size), dtype=torch.float32)
    upper[:, rows, columns] = triangles.float()
    return upper - upper.mT


def side_of_triangle(count: int) -> int:
    """The b of which b (b - 1) / 2 is the count; 0 when there is none."""
    size = (1 + math.isqrt(1 + 8 * count)) // 2
    return size if size * (size - 1) // 2 == count else 0


def cayley(q: Tensor) -> Tensor:
    """(I + Q)(I - Q)^-1 - I = 2 Q (I - Q)^-1 of each block: a rotation less the identity, so that small ones
    keep their digits. The factors commute.
    """
    return torch.linalg.solve(torch.eye(q.shape[-1], device=q.device) - q, 2 * q)


def neumann(q: Tensor) -> Tensor:
    """2 Q + 2 Q^2 + 2 Q^3 + Q^4: near `cayley` for small Q, and what PEFT computes instead."""
    square = q @ q
    return 2 * (q + square + square @ q) + square @ square


def limited(q: Tensor, limit: float) -> Tensor:
    """Q, shrunk to this Frobenius norm over all blocks together where it is larger."""
    norm = torch.linalg.vector_norm(q)
    return q * ((norm.clamp_max(limit) + 1e-8) / (norm + 1e-8))


def times_blocks(x: Tensor, blocks: Tensor) -> Tensor:
    """x times a block-diagonal matrix, in x's type and shape.

    x: (..., n * b).
    blocks: (n, b, b).
    """
    count, size, _ = blocks.shape
    pieces = x.reshape(-1, count, size).transpose(0, 1)  # (n, rows, b)
    return torch.bmm(pieces, blocks.to(x.dtype)).transpose(0, 1).reshape(x.shape)


def exchanged(x: Tensor, groups: int, pieces: int, size: int) -> Tensor:
    """x (..., out), of which each run of groups * pieces * size places is put into another order: what stood
    as (groups, pieces, size) stands as (pieces, groups, size).
    """
    return x.unflatten(-1, (-1, groups, pieces, size)).transpose(-3, -2).flatten(-4)


def nearest(wanted: int, sizes: Iterable[int]) -> int:
    """The nearest of some sizes, of two equally near ones the smaller; 0 when there are none."""
    return min(sizes, key=lambda size: (abs(size - wanted), size), default=0)


def divisors(width: int) -> list[int]:
    """All numbers that divide it."""
    return [size for size in range(1, width + 1) if width % size == 0]
