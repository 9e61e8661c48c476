"""BOFT (Liu et al. 2023, arXiv:2311.06243) as PEFT and sd-scripts have it: rotations of what a layer is
given, one after the other, and a factor for each of its outputs.

    Q = (R - R^T) / 2;  C = (I - Q)(I + Q)^-1;  B = B_n ... B_1, each the C in another order of the inputs
    W' = s * W B^T

The files have `boft_R` (factors, blocks, side, side) and `boft_s` (out, 1), of convolutions (1, out).
LyCORIS' BOFT, which rotates what a layer gives, is `networks.lycoris_boft`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.arguments import switch, warn_of_idle
from library.network.block_arguments import (
    ConvolutionArguments,
    a_probability,
    read_own_values,
    whole_number,
    without_alphas,
)
from library.network.block_building import (
    blocks_from_file,
    build_in_blocks,
    does_not_fit,
    warn_of_idle_alpha,
)
from library.network.building import DEFAULT_DIM
from library.network.family import Shapes
from library.network.network import Network
from library.network.rotating import BlockModule, side_of
from library.network.rotation import cayley, exchanged, skew, times_blocks
from library.network.sizes import Size
from library.problems import UserError

KIND = "boft"
MODULE = "networks.boft"
_NO_ALPHA = "it has no alpha"
REFUSED = without_alphas(_NO_ALPHA)


@dataclass(frozen=True)
class BOFTArguments(ConvolutionArguments):
    """What --network_args ask for.

    block_size, boft_block_size: how many inputs a block has, before --network_dim.
    block_num, boft_block_num: how many blocks a layer has, instead.
    boft_n_butterfly_factor: how many rotations there are.
    auto_adjust: whether the size becomes the nearest that fits a layer.
    dropout, boft_dropout: as rank_dropout.
    """

    block_size: int | None = None
    boft_block_size: int | None = None
    block_num: int | None = None
    boft_block_num: int | None = None
    boft_n_butterfly_factor: int = 1
    auto_adjust: bool = True
    dropout: float | None = None
    boft_dropout: float | None = None


class BOFTModule(BlockModule):
    """Rotations of the layer's inputs and factors of its outputs: y = s * W B^T x + bias."""

    def __init__(self, point: AttachPoint, factors: int, side: int) -> None:
        super().__init__(point)
        out, width = self.weight_shape[0], self.weight_shape[1:].numel()
        is_convolution = isinstance(self.layer, nn.Conv2d) or point.is_1x1_in_files
        self.boft_R = nn.Parameter(torch.zeros(factors, width // side, side, side))
        self.boft_s = nn.Parameter(torch.ones((1, out) if is_convolution else (out, 1)))

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.boft_R)
        nn.init.ones_(self.boft_s)

    def make_matrices(self) -> Tensor:
        return cayley(-skew(self.boft_R) / 2)

    def rotate(self, rows: Tensor, *, is_weight: bool) -> Tensor:
        """What B^T adds to rows of a weight, or B to rows of inputs: (..., width), in their type."""
        matrices, added = self.matrices(), torch.zeros_like(rows)
        half = matrices.shape[-1] // 2
        stages = list(enumerate(matrices.mT if is_weight else matrices))
        for stage, own in stages if is_weight else reversed(stages):
            x = rows + added
            if not stage:
                added = added + times_blocks(x, own)
                continue
            near = exchanged(x, 2, 2**stage, half)
            added = added + exchanged(times_blocks(near, own), 2**stage, 2, half)
        return added

    def change(self, out: Tensor, x: Tensor) -> Tensor:
        layer = self.layer
        if self.weight_shape[2:].numel() > 1 or self.points[0].rows is not None:
            return self.add_to(out, x)
        dim = 1 if isinstance(layer, nn.Conv2d) else -1
        added = self.rotate(x.movedim(dim, -1), is_weight=False).movedim(-1, dim)
        # The layer as it computes with what stands in its place, so that a LoRA there is rotated, too.
        turned = self.without_bias(layer.forward(added.to(x.dtype)).movedim(dim, -1))
        own = self.without_bias(out.movedim(dim, -1))
        s = self.boft_s.flatten().float()
        change = turned * s.to(out.dtype) + own * (s - 1).to(out.dtype)
        return torch.add(out, change.movedim(-1, dim), alpha=self.multiplier)

    def delta_weight(self) -> Tensor:
        weight = self.frozen_weight()
        rows = weight.flatten(1)
        s = self.boft_s.flatten().float()[:, None]
        return (s * self.rotate(rows, is_weight=True) + (s - 1) * rows).view(weight.shape)


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that it does not know or whose values are wrong."""
    warn_of_idle(_read(arguments))


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
    """A new BOFT for the given parts of a model. It is not attached yet.

    dim: how many inputs a block has, None is 4.
    alpha: without effect.
    dropout: probability that a block is not rotated in a step.
    arguments: see BOFTArguments.
    Raises UserError when a layer's inputs cannot be divided so.
    """
    asked = _read(arguments)
    warn_of_idle_alpha(alpha, MODULE, _NO_ALPHA)
    dim, count = _size(asked) or dim or DEFAULT_DIM, _count(asked)
    asked = replace(asked, **asked.with_sizes(dim, 1.0))
    factors = asked.boft_n_butterfly_factor
    own = asked.dropout if asked.boft_dropout is None else asked.boft_dropout

    def new(point: AttachPoint, size: Size) -> BOFTModule:
        width = point.module.weight[0].numel()
        wanted = max(1, width // count) if count else size.rank
        side = side_of(point, wanted, width, adjusts=asked.auto_adjust, factors=factors)
        return BOFTModule(point, factors, side)

    return build_in_blocks(
        model,
        KIND,
        asked,
        dim=dim,
        alpha=None,
        dropout=own if dropout is None else dropout,
        parts=parts,
        seed=seed,
        like=like,
        new=new,
        known=_known,
    )


def from_file(model: Model, path: Path) -> Network:
    """The BOFT in a file, for a model. Raises UserError when it is none or does not fit the model."""
    return blocks_from_file(model, path, KIND, _known)


def _read(arguments: dict[str, str]) -> BOFTArguments:
    own: dict[str, Callable[[str], Any]] = {
        "enable_conv": switch,
        **dict.fromkeys(("block_size", "boft_block_size", "block_num", "boft_block_num"), whole_number),
        "boft_n_butterfly_factor": whole_number,
        "auto_adjust": switch,
        "dropout": a_probability,
        "boft_dropout": a_probability,
    }
    asked = BOFTArguments(**read_own_values(arguments, own, MODULE, REFUSED))
    if _size(asked) and _count(asked):
        raise UserError.of("--network_args block_num", "contradicts block_size", "give one of them")
    return asked


def _size(asked: BOFTArguments) -> int | None:
    return asked.block_size or asked.boft_block_size


def _count(asked: BOFTArguments) -> int | None:
    return asked.block_num or asked.boft_block_num


def _known(point: AttachPoint, _: Size, shapes: Shapes, source: Path | None) -> BOFTModule:
    shape, out = shapes["boft_R"], point.module.weight.shape[0]
    factors, count, side, other = shape if len(shape) == 4 else (0, 0, 0, 0)
    width = point.module.weight[0].numel()
    fits = side == other and count * side == width and factors > 0
    if not fits or (factors > 1 and (side % 2 or width % (side * 2 ** (factors - 1)))):
        raise does_not_fit(source, "boft_R", shape, point)
    if shapes["boft_s"] not in ((out, 1), (1, out)):
        raise does_not_fit(source, "boft_s", shapes["boft_s"], point)
    module = BOFTModule(point, factors, side)
    module.boft_s = nn.Parameter(torch.ones(shapes["boft_s"]))
    return module
