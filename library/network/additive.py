"""What additive kinds share: dropouts, a scalar that is learned, and DoRA, the decomposition of the sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint
from library.network.module import NetworkModule, rows_of
from library.network.sizes import Size

Axis = Literal["input", "output"]
EPS = torch.finfo(torch.float32).eps  # what LyCORIS and OneTrainer add to DoRA's norms
SCALAR, MAGNITUDE = "scalar", "dora_scale"


@dataclass(frozen=True)
class Variant:
    """How an additive module is made and trained, whatever its kind.

    dropout: the probability that a value inside the module is dropped.
    rank_dropout: the probability that a rank, or an output where there is no such thing, is dropped.
    scales_dropout: whether what rank_dropout leaves is scaled up, so that its mean stays.
    module_dropout: the probability that the module is dropped for a step.
    has_scalar: whether a learned number multiplies the change.
    is_tucker: whether kernels of more than 1x1 are a product of their own (Tucker decomposition).
    dora: along which axis of the weight there are magnitudes; None: it is no DoRA.
    """

    dropout: float = 0.0
    rank_dropout: float = 0.0
    scales_dropout: bool = True
    module_dropout: float = 0.0
    has_scalar: bool = False
    is_tucker: bool = False
    dora: Axis | None = None


PLAIN = Variant()


class AdditiveModule(NetworkModule):
    """W' = W + D or, as DoRA (Liu et al. 2024, arXiv:2402.09353), W' = magnitude * (W + D) / |W + D|.

    A kind has its tensors' names in `factor_names`, says what D is by `added` and `additive_delta`, and gives
    them their first values by `initialize_factors`. D counts alpha / rank and is a product of the factors, so
    that a scalar on one of them is one on D.

    |W + D| are norms of columns (axis "input", the magnitudes are (1, in[, 1, 1])) or of rows ("output",
    (out, 1[, 1, 1])), to which gradients do not flow, as in the paper.
    """

    stands = "instead"
    follows_dtype = True
    factor_names: tuple[str, ...]
    scalar_on: str  # the factor that the scalar is part of in files
    scalar: nn.Parameter | None
    dora_scale: nn.Parameter | None

    def __init__(self, point: AttachPoint, size: Size, variant: Variant = PLAIN) -> None:
        super().__init__(point, size=size)
        self.axis = variant.dora
        self.dropout, self.rank_dropout = variant.dropout, variant.rank_dropout
        self.scales_dropout, self.module_dropout = variant.scales_dropout, variant.module_dropout
        self.scalar = nn.Parameter(torch.zeros(())) if variant.has_scalar else None
        shape = magnitude_shape(self.weight_shape, variant.dora)
        self.dora_scale = nn.Parameter(torch.ones(shape)) if shape else None

    def added(self, out: Tensor, x: Tensor, strength: float) -> Tensor:
        """out + strength * D x, with the dropouts of values and ranks; in out's shape."""
        raise NotImplementedError

    def additive_delta(self) -> Tensor:
        """D: the layer's weight's shape, float32."""
        raise NotImplementedError

    def initialize_factors(self, generator: torch.Generator) -> None:
        """Set the factors' first values. D is zero, unless a scalar makes it so."""
        raise NotImplementedError

    @property
    def drops(self) -> bool:
        """Whether something is dropped in this step."""
        return self.training and bool(self.dropout or self.rank_dropout or self.module_dropout)

    def computed_with(self) -> tuple[Tensor, ...]:
        return tuple(self.get_parameter(name) for name in self.factor_names)

    def factors(self, dtype: torch.dtype) -> Sequence[Tensor]:
        """The factors in a dtype, in the order of `factor_names`, with the scalar in its place."""
        found = self.weights_in(dtype)
        if self.scalar is None:
            return found
        place = self.factor_names.index(self.scalar_on)
        return [one * self.scalar if number == place else one for number, one in enumerate(found)]

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        return self.added(out, x, self.multiplier)

    def change(self, out: Tensor, x: Tensor) -> Tensor:
        changed = self.add_to(out, x) if self.dora_scale is None else self._decomposed(out, x)
        if self.training and self.module_dropout:
            changed = torch.where(torch.rand((), device=x.device) >= self.module_dropout, changed, out)
        return changed

    def computes_together(self, x: Tensor) -> bool:
        return self.axis == "input" and not self.drops and self.is_replaceable(x)

    def forward_with_layer(self, x: Tensor) -> Tensor:
        """DoRA with magnitudes of inputs scales what the layer is given."""
        excess = self._excess_for(x)
        layer: nn.Module = self.layer
        scaled = torch.addcmul(x, x, excess)
        given = scaled if self.multiplier == 1 else torch.addcmul(x, x, excess * self.multiplier)
        return self.added(type(layer).forward(layer, given), scaled, self.multiplier)

    def _decomposed(self, out: Tensor, x: Tensor) -> Tensor:
        """W + m * (W' - W) for x, where out is W for x."""
        point, layer, is_conv = self.points[0], self.layer, isinstance(self.layer, nn.Conv2d)
        excess = self._excess_for(x)
        if self.axis == "input":
            own: nn.Module = layer
            x = torch.addcmul(x, x, excess)
            changed = self.added(rows_of(point, type(own).forward(own, x), 1 if is_conv else -1), x, 1.0)
        else:
            bias = None if layer.bias is None else rows_of(point, layer.bias).to(out.dtype)
            bias = bias[:, None, None] if bias is not None and is_conv else bias
            changed = self.added(out if bias is None else out - bias, x, 1.0)
            changed = torch.addcmul(changed, changed, excess)
            changed = changed if bias is None else changed + bias
        return changed if self.multiplier == 1 else torch.lerp(out, changed, self.multiplier)

    def _gain(self) -> Tensor:
        """What DoRA multiplies W + D by: the magnitudes' shape, float32."""
        assert self.dora_scale is not None and self.axis is not None
        with torch.no_grad():
            norms = self.sum_norms(self.axis).clamp_min(0).sqrt()
        return self.dora_scale.float() / (norms.view(self.dora_scale.shape) + EPS)

    def _excess_for(self, x: Tensor) -> Tensor:
        """The same less 1, in the type and along the channels of what the layer is given or gives.

        In 16 bits 1.001 would be 1.
        """
        excess = self._gain().flatten() - 1
        return (excess[:, None, None] if isinstance(self.layer, nn.Conv2d) else excess).to(x.dtype)

    def sum_norms(self, axis: Axis) -> Tensor:
        """The squared norm of each column or row of W + D. Kinds may know how to do without D."""
        return squared_norms(self.frozen_weight() + self.additive_delta(), axis)

    def delta_weight(self) -> Tensor:
        delta = self.additive_delta()
        if self.dora_scale is None:
            return delta
        weight = self.frozen_weight()
        return (weight + delta) * self._gain() - weight

    def initialize(self, generator: torch.Generator) -> None:
        self.initialize_factors(generator)
        if self.scalar is not None:
            nn.init.zeros_(self.scalar)
        self._take_magnitudes()

    @torch.no_grad()
    def _take_magnitudes(self) -> None:
        """The magnitudes of W: a new DoRA changes nothing."""
        if self.dora_scale is not None and self.axis is not None:
            norms = squared_norms(self.frozen_weight(), self.axis).sqrt()
            self.dora_scale.copy_(norms.view(self.dora_scale.shape))

    def file_tensors(self) -> dict[str, Tensor]:
        """Files know no scalar: it is part of a factor."""
        own = self.state_dict()
        scalar = own.pop(SCALAR, None)
        return own if scalar is None else own | {self.scalar_on: own[self.scalar_on] * scalar}

    def from_file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = {"alpha": self.alpha.clone(), **tensors}
        return own if self.scalar is None else own | {SCALAR: torch.ones(())}

    def change_norm(self) -> Tensor:
        """Of D: DoRA's magnitudes are not limited."""
        return self.additive_delta().norm()

    def scale_change(self, factor: Tensor) -> None:
        for name in self.factor_names:
            self.get_parameter(name).mul_(factor.pow(1 / len(self.factor_names)))

    def plus(self, out: Tensor, product: Tensor, strength: float) -> Tensor:
        """out + strength * alpha / rank * product, with the dropouts of values and of whole outputs."""
        if self.drops:
            product = self._dropped(product)
        return torch.add(out, product, alpha=self.scale * strength)

    def _dropped(self, product: Tensor) -> Tensor:
        if self.dropout:
            product = F.dropout(product, self.dropout)
        if self.rank_dropout:
            is_conv = isinstance(self.layer, nn.Conv2d)
            count = product.shape[1 if is_conv else -1]
            kept = (torch.rand(count, device=product.device) > self.rank_dropout).to(product.dtype)
            kept = kept / (1 - self.rank_dropout) if self.scales_dropout else kept
            product = product * (kept[:, None, None] if is_conv else kept)
        return product


def magnitude_shape(weight: Sequence[int], axis: Axis | None) -> tuple[int, ...]:
    """The shape of DoRA's magnitudes of a weight: empty when there are none."""
    out, inputs, *kernel = weight
    ones = [1] * len(kernel)
    return {None: (), "input": (1, inputs, *ones), "output": (out, 1, *ones)}[axis]


def squared_norms(weight: Tensor, axis: Axis) -> Tensor:
    """(in,) or (out,): the squared norm of each column or row of a weight (out, in[, k, k])."""
    kept = 1 if axis == "input" else 0
    others = [dim for dim in range(weight.ndim) if dim != kept]
    return torch.linalg.vector_norm(weight, dim=others).square()


def low_rank_norms(weight: Tensor, up: Tensor, down: Tensor, axis: Axis) -> Tensor:
    """The squared norms of W + B A, without a matrix of W's size beside W.

    weight: W (out, in[, k, k]), float32.
    up, down: B (out, rank) and A (rank, in * k * k), float32.
    """
    flat, sides = weight.flatten(1), (-1, weight.shape[1], weight.shape[2:].numel())
    if axis == "output":
        # |W_o|^2 + 2 (W A^T)_o B_o + B_o A A^T B_o
        cross = 2 * (flat @ down.T) + up @ (down @ down.T)  # (out, rank)
        return squared_norms(weight, axis) + (cross * up).sum(1)
    cross = 2 * (up.T @ flat) + (up.T @ up) @ down  # (rank, in * k * k)
    return squared_norms(weight, axis) + (cross * down).view(sides).sum((0, 2))
