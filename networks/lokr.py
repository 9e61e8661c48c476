"""LoKr (Yeh et al. 2024, arXiv:2309.14859): the Kronecker product of two small matrices.

Targets, sizes and rates are those of LoRA; files are those of LyCORIS and of sd-scripts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.additive import AdditiveModule, Axis, Variant, squared_norms
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
from library.network.sizes import Size, factorize
from library.problems import UserError

KIND = "lokr"
W1, W1_A, W1_B = "lokr_w1", "lokr_w1_a", "lokr_w1_b"
W2, W2_A, W2_B, T2 = "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"


@dataclass(frozen=True)
class LoKrArguments(AdditiveArguments):
    """What --network_args ask of a LoKr.

    factor: a side of the first matrix: where it divides a layer's side, else at most that; -1: near the root.
    decompose_both: the first matrix is of low rank, too, where it is large enough.
    full_matrix: the second matrix is whole, whatever the rank.
    unbalanced_factorization: the first matrix has the larger of the two factors of a layer's outputs.
    """

    factor: int = -1
    decompose_both: bool = False
    full_matrix: bool = False
    unbalanced_factorization: bool = False


@dataclass(frozen=True)
class Sides:
    """How a weight (out, in[, k, k]) divides: W1 is (out_l, in_m), W2 (out_k, in_n[, k, k])."""

    out_l: int
    out_k: int
    in_m: int
    in_n: int
    kernel: tuple[int, ...]

    def shapes(self, rank1: int | None, rank2: int | None, *, is_tucker: bool) -> dict[str, tuple[int, ...]]:
        """The shapes of the factors. rank1, rank2: of W1 and W2; None: the matrix is whole."""
        found: dict[str, tuple[int, ...]] = {W1: (self.out_l, self.in_m)}
        if rank1 is not None:
            found = {W1_A: (self.out_l, rank1), W1_B: (rank1, self.in_m)}
        if rank2 is None:
            return found | {W2: (self.out_k, self.in_n, *self.kernel)}
        if is_tucker and self.kernel not in ((), (1, 1)):
            core = (rank2, rank2, *self.kernel)
            return found | {W2_A: (rank2, self.out_k), W2_B: (rank2, self.in_n), T2: core}
        return found | {W2_A: (self.out_k, rank2), W2_B: (rank2, self.in_n * math.prod(self.kernel))}


class LoKrModule(AdditiveModule):
    """W + m * alpha / rank * W1 (x) W2, (x) being the Kronecker product.

    W2 starts at zero (its B, where it is of low rank), so a new one changes nothing. x is seen as a matrix X
    (in_m, in_n): what is added is W1 X W2^T, which needs no matrix of the layer's size. Where both matrices
    are whole there is no rank, and the scale is 1 whatever alpha is, as all programs read it.
    """

    def __init__(
        self, point: AttachPoint, size: Size, variant: Variant, sides: Sides, shapes: Shapes
    ) -> None:
        """sides, shapes: of its factors."""
        self.is_whole = W1 in shapes and W2 in shapes
        super().__init__(point, Size(size.rank or 1, size.alpha), variant)
        self.sides = sides
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.factor_names = tuple(shapes)
        self.scalar_on = W1 if W1 in shapes else W1_A
        if self.is_whole:
            self.alpha.fill_(self.rank)
            self.scale = 1.0

    def took_values(self) -> None:
        super().took_values()
        if self.is_whole:
            self.scale = 1.0

    def initialize_factors(self, generator: torch.Generator) -> None:
        """As LyCORIS does: uniform (Kaiming with a = sqrt 5), W2 zero, but for a scalar."""
        for name, weight in zip(self.factor_names, self.computed_with(), strict=True):
            if name in (W2, W2_B) and self.scalar is None:
                nn.init.zeros_(weight)
            else:
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)

    def added(self, out: Tensor, x: Tensor, strength: float) -> Tensor:
        own, sides = self._named(x.dtype), self.sides
        w1 = _first(own)
        if not isinstance(self.layer, nn.Conv2d):
            hidden = x.reshape(*x.shape[:-1], sides.in_m, sides.in_n)
            hidden = F.linear(hidden, own[W2]) if W2 in own else hidden @ own[W2_B].T @ own[W2_A].T
            return self.plus(out, (w1 @ hidden).flatten(-2), strength)
        batch, _, height, width = x.shape
        hidden = self._convolved(x.reshape(batch * sides.in_m, sides.in_n, height, width), own)
        product = w1 @ hidden.reshape(batch, sides.in_m, -1)  # (batch, out_l, out_k * h * w)
        return self.plus(out, product.view(batch, -1, *hidden.shape[2:]), strength)

    def _convolved(self, x: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        """What W2 gives for x (n, in_n, h, w): (n, out_k, h, w)."""
        if W2 in own:
            return self.as_layer(x, own[W2])
        w2_a, w2_b = own[W2_A], own[W2_B]
        if T2 in own:
            hidden = self.as_layer(F.conv2d(x, w2_b[:, :, None, None]), own[T2])
            return F.conv2d(hidden, w2_a.T[:, :, None, None])
        hidden = self.as_layer(x, w2_b.view(-1, self.sides.in_n, *self.sides.kernel))
        return F.conv2d(hidden, w2_a[:, :, None, None])

    def _named(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return dict(zip(self.factor_names, self.factors(dtype), strict=True))

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """W1 (out_l, in_m) and W2 (out_k, in_n, k * k), float32: all that it is, but for its scale."""
        own, sides = self._named(torch.float32), self.sides
        if W2 in own:
            w2 = own[W2]
        elif T2 in own:
            w2 = torch.einsum("pqhw,qi,po->oihw", own[T2], own[W2_B], own[W2_A])
        else:
            w2 = own[W2_A] @ own[W2_B]
        return _first(own), w2.reshape(sides.out_k, sides.in_n, -1).contiguous()

    def additive_delta(self) -> Tensor:
        w1, w2 = self._matrices()
        return torch.kron(w1[:, :, None], w2).view(self.weight_shape) * self.scale

    def change_norm(self) -> Tensor:
        """That of a Kronecker product is the product of both norms."""
        w1, w2 = self._matrices()
        return w1.norm() * w2.norm() * self.scale

    def sum_norms(self, axis: Axis) -> Tensor:
        """|W|^2 + 2 W o D + |D|^2 along the axis, from the factors of D."""
        w1, w2 = self._matrices()
        w2, sides, weight = w2 * self.scale, self.sides, self.frozen_weight()
        parts = weight.reshape(sides.out_l, sides.out_k, sides.in_m, sides.in_n, -1)
        if axis == "output":
            cross = torch.einsum("lkmnz,lm->lknz", parts, w1)
            cross = (cross * w2).sum((2, 3))  # (out_l, out_k)
        else:
            cross = torch.einsum("lkmnz,lm->kmnz", parts, w1)
            cross = (cross * w2[:, None]).sum((0, 3))  # (in_m, in_n)
        own = torch.outer(squared_norms(w1, axis), squared_norms(w2, axis))
        return squared_norms(weight, axis) + (2 * cross + own).flatten()

    def from_file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Files may have matrices of convolutions with two sides or four."""
        found = super().from_file_tensors(tensors)
        own = {name: self.get_parameter(name) for name in self.factor_names}
        return {
            name: value.reshape(own[name].shape) if name in own and name != T2 else value
            for name, value in found.items()
        }

    def plus_parameters(self) -> list[nn.Parameter]:
        """As in sd-scripts."""
        return [self.get_parameter(self.scalar_on)]


def _first(own: Mapping[str, Tensor]) -> Tensor:
    return own[W1] if W1 in own else own[W1_A] @ own[W1_B]


def new_shapes(
    weight: tuple[int, ...], rank: int, asked: LoKrArguments, variant: Variant
) -> tuple[Sides, Shapes]:
    """How a layer's weight divides, and the shapes of a new LoKr's factors.

    A matrix is whole where a low rank would not make it smaller.
    """
    out, inputs, *kernel = weight
    (out_l, out_k), (in_m, in_n) = factorize(out, asked.factor), factorize(inputs, asked.factor)
    if asked.unbalanced_factorization:
        out_l, out_k = out_k, out_l
    sides = Sides(out_l, out_k, in_m, in_n, tuple(kernel))
    rank1 = rank if asked.decompose_both and 2 * rank < max(out_l, in_m) else None
    rank2 = rank if not asked.full_matrix and 2 * rank < max(out_k, in_n) else None
    return sides, sides.shapes(rank1, rank2, is_tucker=variant.is_tucker)


def shapes_in_file(point: AttachPoint, given: Shapes, source: Path | None) -> tuple[Sides, Shapes, int]:
    """The same of a LoKr in a file, and its rank; 0: it has none. Raises UserError when it is not whole or
    does not fit the layer.
    """
    out, inputs, *kernel = weight_shape(point)
    first = [given.get(W1, given.get(W1_A, ()))[:1], given.get(W1, given.get(W1_B, ()))[1:2]]
    if not all(first):
        raise UserError.of(source, f"{point.path} has no whole {W1}", "the file is not whole; get it again")
    (out_l,), (in_m,) = first
    fits = 0 not in (out_l, in_m) and out % out_l == inputs % in_m == 0
    if not fits:
        cause = f"{W1} of {point.path} is ({out_l}, {in_m}), which does not divide the model's layer"
        raise UserError.of(source, cause, "use a LoKr that was made for this kind of model")
    sides = Sides(out_l, out // out_l, in_m, inputs // in_m, tuple(kernel))
    rank1 = given[W1_B][0] if W1 not in given else None
    rank2 = given[W2_B][0] if W2 not in given and W2_B in given else None
    wanted = sides.shapes(rank1, rank2, is_tucker=T2 in given)
    return sides, wanted, rank2 or rank1 or 0


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that LoKr does not know or whose values are wrong."""
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
    """A new LoKr for a model, see `NetworkFactory.create`. dropout: of values that it adds."""
    asked = _read(arguments)
    make = _maker(asked, like)
    return create_additive(
        *(model, KIND, asked, make), dim=dim, alpha=alpha, dropout=dropout, parts=parts, seed=seed, like=like
    )


def from_file(model: Model, path: Path) -> Network:
    """The LoKr in a file for a model. Raises UserError when the file is none or does not fit."""
    return additive_from_file(model, path, KIND, _maker(LoKrArguments(), path))


def _maker(asked: LoKrArguments, source: Path | None) -> MakeAdditive:
    def module(point: AttachPoint, size: Size, variant: Variant, given: Shapes) -> LoKrModule:
        weight = weight_shape(point)
        if not given:
            sides, shapes = new_shapes(weight, size.rank, asked, variant)
            return LoKrModule(point, size, variant, sides, shapes)
        sides, shapes, rank = shapes_in_file(point, given, source)
        check_shapes(point, with_magnitudes(shapes, weight, variant), given, source, "LoKr")
        return LoKrModule(point, Size(rank, size.alpha), variant, sides, shapes)

    return module


def _factor(text: str) -> int:
    if text.strip() == "-1" or (text.strip().isdecimal() and int(text) > 0):
        return int(text)
    raise ValueError("expects a whole number of 1 or more, or -1")


def _read(arguments: Mapping[str, str]) -> LoKrArguments:
    switches = ("decompose_both", "full_matrix", "unbalanced_factorization", "verbose")
    readers = ADDITIVE_READERS | {"factor": _factor} | dict.fromkeys(switches, switch)
    return LoKrArguments(**read_additive(arguments, "networks.lokr", readers))
