"""LoHa (Hyeon-Woo et al. 2021, arXiv:2108.06098): the product, value by value, of two low-rank changes.

Its rank reaches the square of network_dim. Targets, sizes and rates are those of LoRA; files are those of
LyCORIS and of sd-scripts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.additive import PLAIN, AdditiveModule, Axis, Variant, low_rank_norms
from library.network.additive_kinds import (
    ADDITIVE_READERS,
    AdditiveArguments,
    MakeAdditive,
    additive_from_file,
    check_shapes,
    create_additive,
    read_additive,
    warn_of_idle_additions,
    with_magnitudes,
)
from library.network.arguments import switch
from library.network.family import Shapes
from library.network.module import weight_shape
from library.network.network import Network
from library.network.sizes import Size

KIND = "loha"
W1_A, W1_B, W2_A, W2_B = FACTORS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
T1, T2 = CORES = ("hada_t1", "hada_t2")


class LoHaModule(AdditiveModule):
    """W + m * alpha / rank * (A1 B1) o (A2 B2), o being the product value by value.

    A1, A2 (`hada_w*_a`) are (out, rank), B1, B2 (`hada_w*_b`) (rank, in * k * k); A2 starts at zero, so a new
    one changes nothing. As Tucker decompositions of a kernel they have a core `hada_t*` (rank, rank, k, k),
    and are (rank, out) and (rank, in).
    """

    def __init__(self, point: AttachPoint, size: Size, variant: Variant = PLAIN) -> None:
        super().__init__(point, size, variant)
        shapes = loha_shapes(self.weight_shape, size.rank, is_tucker=variant.is_tucker)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.factor_names, self.scalar_on = tuple(shapes), W1_A
        out, width = self.weight_shape[0], self.weight_shape[1:].numel()
        # It is a LoRA of rank^2 too, which needs no matrix of the layer's size: where that is less work.
        self._is_low_rank = len(shapes) == len(FACTORS) and size.rank**2 * (out + width) <= out * width

    def initialize_factors(self, generator: torch.Generator) -> None:
        """As LyCORIS does; A2 is zero, but for a scalar."""
        for name, weight in zip(self.factor_names, self.computed_with(), strict=True):
            if name == W2_A and self.scalar is None:
                nn.init.zeros_(weight)
            else:
                nn.init.normal_(weight, std=1.0 if name in (W1_B, W2_B) else 0.1, generator=generator)

    def added(self, out: Tensor, x: Tensor, strength: float) -> Tensor:
        factors = self.factors(x.dtype)
        if not self._is_low_rank:
            return self.plus(out, self.as_layer(x, self._product(factors)), strength)
        up, down = _as_low_rank(*factors)
        if not isinstance(self.layer, nn.Conv2d):
            return self.plus(out, x @ down.T @ up.T, strength)
        hidden = self.as_layer(x, down.view(-1, *self.weight_shape[1:]))  # (batch, rank^2, h, w)
        return self.plus(out, nn.functional.conv2d(hidden, up[:, :, None, None]), strength)

    def _product(self, factors: Sequence[Tensor]) -> Tensor:
        """The change of the weight but for its scale. One matrix of its size is kept, a second one passes."""
        w1_a, w1_b, w2_a, w2_b, *cores = factors
        if cores:
            halves = (
                torch.einsum("pqhw,qi,po->oihw", core, b, a)
                for core, a, b in zip(cores, (w1_a, w2_a), (w1_b, w2_b), strict=True)
            )
            first, second = halves
            return first * second
        return _Hadamard.apply(w1_a, w1_b, w2_a, w2_b).view(self.weight_shape)

    def additive_delta(self) -> Tensor:
        return self._product(self.factors(torch.float32)) * self.scale

    def sum_norms(self, axis: Axis) -> Tensor:
        if not self._is_low_rank:
            return super().sum_norms(axis)
        up, down = _as_low_rank(*self.factors(torch.float32))
        return low_rank_norms(self.frozen_weight(), up * self.scale, down, axis)

    def from_file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """OneTrainer's files have factors of convolutions with four sides."""
        found = super().from_file_tensors(tensors)
        return {name: value.flatten(1) if name in FACTORS else value for name, value in found.items()}

    def plus_parameters(self) -> list[nn.Parameter]:
        return [self.get_parameter(W2_A)]


class _Hadamard(torch.autograd.Function):
    """(A1 B1) o (A2 B2), some rows at a time: no second matrix of the result's size is made, nor kept for the
    backward pass.
    """

    @staticmethod
    def forward(ctx: Any, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(*factors)
        w1_a, w1_b, w2_a, w2_b = factors
        product = w1_a @ w1_b
        for rows in _blocks(len(product)):
            product[rows] *= w2_a[rows] @ w2_b
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        w1_a, w1_b, w2_a, w2_b = ctx.saved_tensors
        g1_a, g1_b, g2_a, g2_b = (torch.zeros_like(one) for one in (w1_a, w1_b, w2_a, w2_b))
        for rows in _blocks(len(gradient)):
            first = gradient[rows] * (w2_a[rows] @ w2_b)
            g1_a[rows] = first @ w1_b.T
            g1_b += w1_a[rows].T @ first
            second = gradient[rows] * (w1_a[rows] @ w1_b)
            g2_a[rows] = second @ w2_b.T
            g2_b += w2_a[rows].T @ second
        return g1_a, g1_b, g2_a, g2_b


def _blocks(rows: int) -> list[slice]:
    """An eighth of the rows each, or a few."""
    step = max(64, -(-rows // 8))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _as_low_rank(w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor) -> tuple[Tensor, Tensor]:
    """(out, rank^2) and (rank^2, in * k * k), whose product it is: all pairs of columns and of rows."""
    return (w1_a[:, :, None] * w2_a[:, None]).flatten(1), (w1_b[:, None] * w2_b).flatten(0, 1)


def loha_shapes(weight: tuple[int, ...], rank: int, *, is_tucker: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of a LoHa's factors beside a layer's weight."""
    out, inputs, *kernel = weight
    if is_tucker and kernel and kernel != [1, 1]:
        a, b, core = (rank, out), (rank, inputs), (rank, rank, *kernel)
        return {W1_A: a, W1_B: b, W2_A: a, W2_B: b, T1: core, T2: core}
    width = torch.Size(weight[1:]).numel()
    return {W1_A: (out, rank), W1_B: (rank, width), W2_A: (out, rank), W2_B: (rank, width)}


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that LoHa does not know or whose values are wrong."""
    warn_of_idle_additions(_read(arguments))


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
    """A new LoHa for a model, see `NetworkFactory.create`. dropout: of values that it adds."""
    asked, make = _read(arguments), _maker(like)
    return create_additive(
        *(model, KIND, asked, make), dim=dim, alpha=alpha, dropout=dropout, parts=parts, seed=seed, like=like
    )


def from_file(model: Model, path: Path) -> Network:
    """The LoHa in a file for a model. Raises UserError when the file is none or does not fit."""
    return additive_from_file(model, path, KIND, _maker(path))


def _maker(source: Path | None) -> MakeAdditive:
    def module(point: AttachPoint, size: Size, variant: Variant, shapes: Shapes) -> LoHaModule:
        own = replace(variant, is_tucker=variant.is_tucker or T1 in shapes)
        weight = weight_shape(point)
        wanted = with_magnitudes(loha_shapes(weight, size.rank, is_tucker=own.is_tucker), weight, own)
        check_shapes(point, wanted, shapes, source, "LoHa")
        return LoHaModule(point, size, own)

    return module


def _read(arguments: Mapping[str, str]) -> AdditiveArguments:
    readers = ADDITIVE_READERS | {"verbose": switch}
    return AdditiveArguments(**read_additive(arguments, "networks.loha", readers))
