"""Changes of weights as products of two thin matrices, and the best such product of a lower rank.

Sums, singular values and errors come from the factors: a change of rank 32 of a 1280 x 1280 layer takes
matrices of 32 x 32, not a decomposition of the layer's own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

Criterion = Literal["sv_ratio", "sv_cumulative", "sv_fro"]

NOTHING = 1e-6  # a largest singular value up to this is no change at all
_EXACT_SIDE = 384  # a matrix whose shorter side is no longer is decomposed whole
_POWER_ITERATIONS = 4
_SPARE_RANKS = 16  # sketched beside those that are asked for
_SUMMED_AT_ONCE = 1 << 22  # values in float64: all of a text encoder's table would take a gigabyte


@dataclass(frozen=True)
class Factors:
    """A change of a weight: `up @ down`, seen as a matrix (out, in x kernel height x kernel width).

    up: (out, rank), float32.
    down: (rank, in x kernel), float32.
    shape: of the weight that it changes: (out, in) or (out, in, kernel height, kernel width).
    """

    up: Tensor
    down: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, change: Tensor) -> Factors:
        """A whole change of a weight, exact: one of the factors is the identity."""
        matrix = change.flatten(1).float()
        out, width = matrix.shape
        if out < width:
            return cls(torch.eye(out, device=matrix.device), matrix, tuple(change.shape))
        return cls(matrix, torch.eye(width, device=matrix.device), tuple(change.shape))

    @property
    def rank(self) -> int:
        return self.up.shape[1]

    @property
    def has_kernel(self) -> bool:
        """Whether it changes a convolution of more than 1x1."""
        return self.shape[2:] not in ((), (1, 1))

    def weight(self) -> Tensor:
        """The change itself, in the weight's shape."""
        return (self.up @ self.down).view(self.shape)

    def scaled(self, factor: float) -> Factors:
        return Factors(self.up * factor, self.down, self.shape)

    def norm(self) -> float:
        """Frobenius. Its square is the sum over (up^T up) * (down down^T)."""
        up, down = self.up.double(), self.down.double()
        return float(((up.T @ up) * (down @ down.T)).sum().clamp_min(0).sqrt())

    def decompose(self, rank: int | None = None) -> Spectrum:
        """Its singular value decomposition: QR of both factors, then that of a rank x rank matrix.

        rank: how many values are wanted; None: all. Where the factors are no thinner than the change, the
        leading ones are then found as `decompose` below does.
        """
        if rank is not None and self.rank >= min(len(self.up), self.down.shape[1]):
            return decompose(self.weight(), rank)
        q_up, r_up = torch.linalg.qr(self.up)
        q_down, r_down = torch.linalg.qr(self.down.T)
        left, values, right = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
        return Spectrum(q_up @ left, values, right @ q_down.T, self.shape)


@dataclass(frozen=True)
class Spectrum:
    """The singular values and vectors of a change, largest first.

    left: (out, values), orthonormal columns.
    values: (values,), descending.
    right: (values, in x kernel), orthonormal rows.
    shape: of the weight that is changed.
    rest: the squared norm of what `values` do not hold; 0 when they are all there are.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    shape: tuple[int, ...]
    rest: float = 0.0

    @property
    def energy(self) -> float:
        """The squared norm of the whole change."""
        return self._energy_from(0)

    def factors(self, rank: int) -> Factors:
        """The best product of at most this rank. Both factors get the root of each singular value, so that
        neither leaves the range of float16 before the other.
        """
        rank = min(rank, len(self.values))
        roots = self.values[:rank].sqrt()
        return Factors(self.left[:, :rank] * roots, roots[:, None] * self.right[:rank], self.shape)

    def error(self, rank: int) -> float:
        """The norm of what a product of this rank lacks, relative to the change's; 0 where there is none."""
        return sqrt(self._energy_from(rank) / self.energy) if self.energy > 0 else 0.0

    def _energy_from(self, rank: int) -> float:
        return squared_norm(self.values[rank:]) + self.rest


def squared_norm(values: Tensor) -> float:
    """The sum of squares, in float64."""
    return sum(float(part.double().square().sum()) for part in values.flatten().split(_SUMMED_AT_ONCE))


def combine(changes: Sequence[Factors]) -> Factors:
    """The sum of changes of one weight, exact: their factors side by side. Its rank is the sum of ranks."""
    if len(changes) == 1:
        return changes[0]
    return Factors(
        torch.cat([change.up for change in changes], 1),
        torch.cat([change.down for change in changes]),
        max((change.shape for change in changes), key=len),  # a 1x1 convolution may be kept as a matrix
    )


def decompose(change: Tensor, rank: int, *, seed: int = 0) -> Spectrum:
    """The leading singular values of a change that is a whole matrix or kernel.

    Small ones are decomposed exactly. Of larger ones a randomized range is refined by power iterations
    (Halko et al. 2011, arXiv:0909.4061, algorithm 4.4), whose error is within a percent of the best.

    change: (out, in[, kernel height, kernel width]), any float type and device.
    rank: how many values are wanted.
    seed: of the random range; the same numbers whatever was decomposed before.
    """
    matrix = change.flatten(1).float()
    shape = tuple(change.shape)
    wanted = min(*matrix.shape, rank + _SPARE_RANKS)
    if min(matrix.shape) <= _EXACT_SIDE or wanted > min(matrix.shape) // 2:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return Spectrum(left, values, right, shape)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(matrix.shape[1], wanted, generator=generator).to(matrix.device)
    basis = torch.linalg.qr(matrix @ start).Q  # (out, wanted)
    for _ in range(_POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    rest = squared_norm(matrix) - squared_norm(values)
    return Spectrum(basis @ left, values, right, shape, max(0.0, rest))


def choose_rank(spectrum: Spectrum, most: int, criterion: Criterion | None = None, share: float = 0.0) -> int:
    """How many singular values to keep, 1 to `most`.

    criterion: None: `most`. sv_ratio: values above the largest one / share. sv_cumulative: the fewest whose
    sum is at least share x the sum of all. sv_fro: the fewest whose norm is at least share x that of all.
    share: above 1 for sv_ratio, 0..1 for the others.
    """
    values = spectrum.values.double()
    most = max(1, min(most, len(values)))
    if criterion is None:
        return most
    if float(values[0]) <= NOTHING:
        return 1
    if criterion == "sv_ratio":
        kept = int((values > values[0] / share).sum())
    elif criterion == "sv_cumulative":
        kept = _first_reaching(values.cumsum(0), share * float(values.sum()))
    else:
        kept = _first_reaching(values.square().cumsum(0), share**2 * spectrum.energy)
    return max(1, min(kept, most))


def _first_reaching(sums: Tensor, goal: float) -> int:
    """How many values it takes until their sum reaches a goal; all of them if it never does."""
    reached = sums >= goal * (1 - 1e-9)  # sums that are equal but for rounding
    return int(reached.float().argmax()) + 1 if bool(reached.any()) else len(sums)
