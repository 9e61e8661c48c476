"""T-LoRA (Soboleva et al. 2025, arXiv:2507.05964), as LyCORIS' `algo=tlora` writes it: a LoRA that begins as
the largest part of the weight itself, which is subtracted again.

    W' = W + alpha / rank * (P diag(l) Q - W_rank), W_rank = the best approximation of W of this rank

Files have `q_layer.weight` (rank, in), `p_layer.weight` (out, rank), `lambda_layer` (1, rank), but not what
is subtracted: it is found from the model's weights. They are drawn with and merged; LyCORIS itself trains
them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.block_building import does_not_fit
from library.network.building import network_from_file
from library.network.family import Shapes
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size
from library.problems import UserError

KIND = "tlora"


class Factor(nn.Module):
    """What files call q_layer and p_layer."""

    weight: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(shape))


class TLoRAModule(NetworkModule):
    """Of a linear layer or a 1x1 convolution."""

    lambda_layer: Tensor

    def __init__(self, point: AttachPoint, size: Size) -> None:
        super().__init__(point, size=size)
        out, into, *kernel = self.weight_shape
        self.q_layer = Factor(size.rank, into, *kernel)
        self.p_layer = Factor(out, size.rank, *kernel)
        self.register_buffer("lambda_layer", torch.zeros(1, size.rank))
        self._factors: tuple[Tensor, Tensor] | None = None

    def took_values(self) -> None:
        super().took_values()
        self._factors = None

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        if self._factors is None:
            self._factors = self._low_rank()
        up, down = (factor.to(x) for factor in self._factors)
        if isinstance(self.layer, nn.Conv2d):
            hidden = self.as_layer(x, down[:, :, None, None])
            return torch.add(out, F.conv2d(hidden, up[:, :, None, None]), alpha=self.multiplier)
        return torch.add(out, F.linear(F.linear(x, down), up), alpha=self.multiplier)

    def delta_weight(self) -> Tensor:
        up, down = self._low_rank()
        return (up @ down).view(self.weight_shape)

    def _low_rank(self) -> tuple[Tensor, Tensor]:
        """The change as (out, 2 * rank) @ (2 * rank, in), float32: what was learned, less the start."""
        weight = self.frozen_weight().flatten(1)
        start_up, start_down = largest_part(weight, self.rank)
        scales = self.lambda_layer.to(weight).flatten()
        up, down = (factor.weight.to(weight).flatten(1) for factor in (self.p_layer, self.q_layer))
        return torch.cat([up * scales, -start_up], 1) * self.scale, torch.cat([down, start_down])


def largest_part(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of a matrix: (rows, rank) @ (rank, columns), in the matrix's type.

    The projection onto its first singular vectors (Eckart and Young), which are the eigenvectors of the
    smaller of its two Gram matrices; in float64, since squaring halves the digits.
    """
    wide = weight.shape[0] <= weight.shape[1]
    matrix = weight.double() if wide else weight.double().T
    vectors = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -rank:]
    left, right = vectors.to(weight), (vectors.T @ matrix).to(weight)
    return (left, right) if wide else (right.T, left.T)


def check_arguments(arguments: dict[str, str]) -> NoReturn:
    """Raises UserError: nothing of this kind is trained."""
    fix = "use LyCORIS itself: --network_module lycoris.kohya --network_args algo=tlora"
    raise UserError.of("--network_module networks.tlora", "opens files, and trains none", fix)


def create(
    model: Model,
    *,
    dim: int | None,
    alpha: float | None,
    dropout: float | None,
    arguments: dict[str, str],
    parts: Collection[str],
    seed: int,
    like: Path | None = None,
) -> Network:
    """Raises UserError: nothing of this kind is trained."""
    check_arguments(arguments)


def from_file(model: Model, path: Path) -> Network:
    """The T-LoRA in a file, for a model whose weights are those that it was trained on."""

    def make(point: AttachPoint, size: Size, shapes: Shapes) -> TLoRAModule:
        if any(side != 1 for side in point.module.weight.shape[2:]):
            raise does_not_fit(path, "q_layer.weight", shapes["q_layer.weight"], point)
        return TLoRAModule(point, size)

    return network_from_file(model, path, KIND, make)
