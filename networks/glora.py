"""GLoRA (Chavan et al. 2023, arXiv:2306.07967), as LyCORIS has it: a low-rank addition to the weight, and
another one that depends on the weight itself.

    W' = W + alpha / rank * (W A1 A2 + B1 B2)

That is a LoRA with the factors [W A1, B1] and [A2; B2], and is computed so, without a matrix of the layer's
size. Files have `a1.weight` (in, rank), `a2.weight` (rank, in), `b1.weight` (out, rank), `b2.weight` (rank,
in). Older ones have the other of each pair under these names: (rank, in), (in, rank), (rank, in), (out,
rank).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.arguments import read_arguments, warn_of_idle
from library.network.block_building import does_not_fit
from library.network.building import DEFAULT_DIM, build_network, network_from_file, plan_network
from library.network.family import Shapes
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size

KIND = "glora"
MODULE = "networks.glora"
SWAPPED = {
    "a1.weight": "a2.weight",
    "a2.weight": "a1.weight",
    "b1.weight": "b2.weight",
    "b2.weight": "b1.weight",
}


class Factor(nn.Module):
    """What files call a1, a2, b1, b2."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class GLoRAModule(NetworkModule):
    """y = W x + alpha / rank * multiplier * (W A1 A2 x + B1 B2 x).

    A1 and B1 start at zero. In convolutions A2 and B1 are 1x1, A1 too; B2 has the layer's kernel.
    """

    follows_dtype = True

    def __init__(self, point: AttachPoint, size: Size) -> None:
        super().__init__(point, size=size)
        out, into, *kernel = self.weight_shape
        ones = (1,) * len(kernel)
        self.a1 = Factor(into, size.rank, *ones)
        self.a2 = Factor(size.rank, into, *ones)
        self.b1 = Factor(out, size.rank, *ones)
        self.b2 = Factor(size.rank, into, *kernel)
        self.dropout = self.rank_dropout = self.module_dropout = 0.0

    def initialize(self, generator: torch.Generator) -> None:
        for down, up in ((self.a2, self.a1), (self.b2, self.b1)):
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5), generator=generator)
            nn.init.zeros_(up.weight)

    def computed_with(self) -> tuple[Tensor, ...]:
        return self.a1.weight, self.a2.weight, self.b1.weight, self.b2.weight

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        a1, a2, b1, b2 = self.weights_in(x.dtype)
        layer, scale = self.layer, self.scale * self.multiplier
        own = self.own_weight(x.dtype)
        up = torch.einsum("oi...,ir->or...", own, a1.flatten(1))  # W A1: (out, rank[, k, k])
        if isinstance(layer, nn.Conv2d):
            stride, padding, dilation = layer.stride, layer.padding, layer.dilation
            through_w = F.conv2d(self._drop(F.conv2d(x, a2)), up, None, stride, padding, dilation)
            beside = F.conv2d(self._drop(F.conv2d(x, b2, None, stride, padding, dilation)), b1)
            return torch.add(out, through_w + beside, alpha=scale)
        hidden = self._drop(F.linear(x, torch.cat([a2, b2])))
        return torch.add(out, F.linear(hidden, torch.cat([up, b1], dim=1)), alpha=scale)

    def own_weight(self, dtype: torch.dtype) -> Tensor:
        """The layer's weight (its rows of it) in a dtype."""
        weight, rows = self.layer.weight.detach(), self.points[0].rows
        return (weight if rows is None else weight[rows.start : rows.stop]).to(dtype)

    def _drop(self, hidden: Tensor) -> Tensor:
        """LoRA's dropouts: of values, of whole ranks per sample (rescaled), of this module as a whole."""
        if not self.training:
            return hidden
        if self.dropout:
            hidden = F.dropout(hidden, self.dropout)
        if self.rank_dropout:
            dim = 1 if isinstance(self.layer, nn.Conv2d) else -1
            shape = [1] * hidden.ndim
            shape[0], shape[dim] = hidden.shape[0], hidden.shape[dim]
            kept = torch.rand(shape, device=hidden.device) > self.rank_dropout
            hidden = hidden * kept.to(hidden.dtype) / (1 - self.rank_dropout)
        if self.module_dropout:
            hidden = hidden * (torch.rand((), device=hidden.device) >= self.module_dropout).to(hidden.dtype)
        return hidden

    def delta_weight(self) -> Tensor:
        a1, a2, b1, b2 = (weight.float() for weight in self.computed_with())
        weight = self.frozen_weight()
        through_w = torch.einsum("oi...,ir->or...", weight, a1.flatten(1))
        a_half = torch.einsum("or...,ri->oi...", through_w, a2.flatten(1))
        b_half = torch.einsum("or,ri...->oi...", b1.flatten(1), b2)
        return (a_half + b_half) * self.scale

    def file_tensors(self) -> dict[str, Tensor]:
        return self.in_file_shapes(self.state_dict())

    def from_file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if rank_of(self.points[0], shapes)[1]:
            tensors = {SWAPPED.get(name, name): tensor for name, tensor in tensors.items()}
        return {"alpha": torch.tensor(float(self.rank)), **tensors}

    def plus_parameters(self) -> list[nn.Parameter]:
        return [self.a1.weight, self.b1.weight]

    def scale_change(self, factor: Tensor) -> None:
        for weight in self.plus_parameters():
            weight.mul_(factor)


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that GLoRA does not know or whose values are wrong."""
    warn_of_idle(read_arguments(arguments, MODULE))


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
    """A new GLoRA for the given parts of a model. It is not attached yet.

    dim: rank of linear and 1x1 layers, None is 4.
    alpha: None is 1; 0 means dim, so that the scale is 1.
    dropout: probability of dropping a hidden value.
    arguments: see NetworkArguments.
    """
    asked = read_arguments(arguments, MODULE)
    plan = plan_network(model, KIND, asked, dim=dim or DEFAULT_DIM, alpha=alpha, parts=parts, like=like)

    def make(point: AttachPoint, size: Size, shapes: Shapes) -> GLoRAModule:
        module = _known(point, size, shapes, like) if shapes else GLoRAModule(point, size)
        module.dropout = dropout or 0.0
        module.rank_dropout, module.module_dropout = asked.rank_dropout, asked.module_dropout
        return module

    network = build_network(model, KIND, plan, make, seed=seed)
    if like is not None:
        ranks = {module.rank for module in network.by_name.values()}
        network.dim = ranks.pop() if len(ranks) == 1 else None
    return network


def from_file(model: Model, path: Path) -> Network:
    """The GLoRA in a file of either layout, for a model. Raises UserError when it is none or does not fit."""
    return network_from_file(model, path, KIND, lambda point, size, shapes: _known(point, size, shapes, path))


def rank_of(point: AttachPoint, shapes: Shapes) -> tuple[int, bool]:
    """A module's rank, and whether its tensors are in the older layout; (0, False) when they fit the layer in
    neither. Where both would fit, rank, inputs and outputs being equal, it is the newer one.
    """
    out, into = point.module.weight.shape[:2]
    sides = {name: shapes[name][:2] for name in SWAPPED}
    for is_old in (False, True):
        a1, a2, b1, b2 = (sides[SWAPPED[name] if is_old else name] for name in SWAPPED)
        rank = a1[1]
        if rank and (a1, a2, b1, b2) == ((into, rank), (rank, into), (out, rank), (rank, into)):
            return rank, is_old
    return 0, False


def _known(point: AttachPoint, size: Size, shapes: Shapes, source: Path | None) -> GLoRAModule:
    rank, is_old = rank_of(point, shapes)
    if not rank:
        raise does_not_fit(source, "a1.weight", shapes["a1.weight"], point)
    module = GLoRAModule(point, Size(rank, size.alpha))
    for name, parameter in module.named_parameters():
        given = shapes[SWAPPED[name] if is_old else name]
        if math.prod(given) != parameter.numel():
            raise does_not_fit(source, name, given, point)
    return module
