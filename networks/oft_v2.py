"""OFTv2 (Qiu et al. 2025, arXiv:2506.19847): a rotation of what a layer is given, in blocks of its inputs.

    Q = U - U^T;  R = I + 2 Q + 2 Q^2 + 2 Q^3 + Q^4, near (I + Q)(I - Q)^-1;  W' = W R^T

The files are sd-scripts', OneTrainer's and PEFT's: `oft_R.weight` (blocks, side * (side - 1) / 2), the
triangles of U row by row; of one block where all share it. Convolutions are W' = W R over (in * kernel), as
in sd-scripts and OneTrainer; PEFT merges them as W R^T. `oft_R.scaled_oft` is OneTrainer's mark of weights
that are to be divided by 2 sqrt(side - 1).
"""

from __future__ import annotations

import math
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
    a_positive_number,
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
from library.network.family import Shapes
from library.network.network import Network
from library.network.rotating import InputRotation, side_of
from library.network.rotation import neumann, side_of_triangle, skew_of_triangles, times_blocks
from library.network.sizes import Size
from library.problems import warn

KIND = "oft_v2"
MODULE = "networks.oft_v2"
DEFAULT_DIM = 32
_NO_ALPHA = "it has no alpha"
REFUSED = without_alphas(_NO_ALPHA)


@dataclass(frozen=True)
class OFTv2Arguments(ConvolutionArguments):
    """What --network_args ask for.

    block_size, oft_block_size: how many inputs a block has, before --network_dim.
    auto_adjust: whether it becomes the nearest number that divides a layer's inputs.
    coft: whether Q is kept small (constrained OFT).
    coft_eps: how small: its norm in a block is at most coft_eps / sqrt(blocks).
    block_share: whether all blocks of a layer are one.
    dropout, dropout_probability: as rank_dropout.
    """

    block_size: int | None = None
    oft_block_size: int | None = None
    auto_adjust: bool = True
    coft: bool = False
    coft_eps: float = 6e-5
    block_share: bool = False
    dropout: float | None = None
    dropout_probability: float | None = None


class Triangles(nn.Module):
    """What files call oft_R."""

    scaled_oft: Tensor | None

    def __init__(self, count: int, side: int, *, is_scaled: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, side * (side - 1) // 2))
        self.register_buffer("scaled_oft", torch.tensor(True) if is_scaled else None)


class OFTv2Module(InputRotation):
    """One rotation in blocks of the layer's inputs.

    eps: the largest norm of a block's Q times the root of their number, when training; None: any.
    """

    def __init__(self, point: AttachPoint, blocks: tuple[int, int], *, is_scaled: bool = False) -> None:
        """blocks: how many, 1 where they share one, and their side."""
        super().__init__(point)
        count, self.side = blocks
        self.oft_R = Triangles(count, self.side, is_scaled=is_scaled)
        self.count = self.width // self.side
        self.divisor = 2 * math.sqrt(max(1, self.side - 1)) if is_scaled else 1.0
        self.eps: float | None = None

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.oft_R.weight)

    def make_matrices(self) -> Tensor:
        if self.eps is not None and self.training:
            self.keep_small()
        matrices = neumann(skew_of_triangles(self.oft_R.weight / self.divisor))
        return matrices.expand(self.count, -1, -1)

    @torch.no_grad()
    def keep_small(self) -> None:
        """Shrink each block's Q to its largest norm, as PEFT does: the weights themselves."""
        assert self.eps is not None
        weight = self.oft_R.weight
        norms = math.sqrt(2) * weight.float().norm(dim=1, keepdim=True) / self.divisor  # of U - U^T
        most = self.eps / math.sqrt(len(weight))
        weight.copy_(weight * (most / norms.clamp_min(most)))

    def file_tensors(self) -> dict[str, Tensor]:
        if self.eps is not None:
            self.keep_small()
        return super().file_tensors()

    def rotate_inputs(self, x: Tensor) -> Tensor:
        return times_blocks(x, self.matrices().mT if self.is_convolution else self.matrices())

    def rotate_weight(self, weight: Tensor) -> Tensor:
        return times_blocks(weight, self.matrices() if self.is_convolution else self.matrices().mT)

    def took_values(self) -> None:
        mark = self.oft_R.scaled_oft
        if mark is not None:
            self.divisor = 2 * math.sqrt(max(1, self.side - 1)) if bool(mark) else 1.0


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that it does not know or whose values are wrong."""
    asked = _read(arguments)
    warn_of_idle(asked)
    if "coft_eps" in arguments and not asked.coft:
        warn("--network_args coft_eps has no effect without coft=true")


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
    """A new OFTv2 for the given parts of a model. It is not attached yet.

    dim: how many inputs a block has, None is 32.
    alpha: without effect.
    dropout: probability that a block is not rotated in a step.
    arguments: see OFTv2Arguments.
    Raises UserError when, without auto_adjust, a layer's inputs cannot be divided so.
    """
    asked = _read(arguments)
    warn_of_idle_alpha(alpha, MODULE, _NO_ALPHA)
    dim = asked.block_size or asked.oft_block_size or dim or DEFAULT_DIM
    asked = replace(asked, **asked.with_sizes(dim, 1.0))
    own = asked.dropout if asked.dropout_probability is None else asked.dropout_probability

    def new(point: AttachPoint, size: Size) -> OFTv2Module:
        width = point.module.weight[0].numel()
        side = side_of(point, size.rank, width, adjusts=asked.auto_adjust)
        module = OFTv2Module(point, (1 if asked.block_share else width // side, side))
        module.eps = asked.coft_eps if asked.coft else None
        return module

    def known(point: AttachPoint, size: Size, shapes: Shapes, source: Path | None) -> OFTv2Module:
        module = _known(point, size, shapes, source)
        module.eps = asked.coft_eps if asked.coft else None
        return module

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
        known=known,
    )


def from_file(model: Model, path: Path) -> Network:
    """The OFTv2 in a file, for a model. Raises UserError when it is none or does not fit the model."""
    return blocks_from_file(model, path, KIND, _known)


def _read(arguments: dict[str, str]) -> OFTv2Arguments:
    own: dict[str, Callable[[str], Any]] = {
        "enable_conv": switch,
        "block_size": whole_number,
        "oft_block_size": whole_number,
        "auto_adjust": switch,
        "coft": switch,
        "coft_eps": a_positive_number,
        "block_share": switch,
        "dropout": a_probability,
        "dropout_probability": a_probability,
    }
    return OFTv2Arguments(**read_own_values(arguments, own, MODULE, REFUSED))


def _known(point: AttachPoint, _: Size, shapes: Shapes, source: Path | None) -> OFTv2Module:
    shape, width = shapes["oft_R.weight"], point.module.weight[0].numel()
    side = side_of_triangle(shape[1]) if len(shape) == 2 else 0
    if side < 2 or width % side or shape[0] not in (1, width // side):
        raise does_not_fit(source, "oft_R.weight", shape, point)
    return OFTv2Module(point, (shape[0], side), is_scaled="oft_R.scaled_oft" in shapes)
