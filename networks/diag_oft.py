"""LyCORIS' diag-OFT: a rotation of what a layer gives, in blocks of about network_dim outputs.

    Q = A - A^T, shrunk to a norm of constraint * out;  R = (I + Q)(I - Q)^-1;  W' = rescale * R^T W

The files are LyCORIS' own: `lora_<layer>.oft_blocks` (blocks, side, side), `.alpha`, which is the constraint
(0: none), and `.rescale` (out, 1[, 1, 1]). Its BOFT, `networks.lycoris_boft`, has a rotation more for each
doubling of the blocks, (stages, blocks, side, side); either reads the other's files. sd-scripts' OFT is
`networks.oft`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.arguments import NetworkArguments, switch, warn_of_idle
from library.network.block_arguments import read_own_values, without_alphas
from library.network.block_building import (
    blocks_from_file,
    build_in_blocks,
    does_not_fit,
    warn_of_idle_alpha,
)
from library.network.building import DEFAULT_DIM
from library.network.family import Shapes
from library.network.network import Network
from library.network.rotating import OutputRotation
from library.network.rotation import cayley, exchanged, limited, skew, times_blocks
from library.network.sizes import Size, factorize

KIND = "diag_oft"
_IS_CONSTRAINT = "what it counts is the constraint"
REFUSED = without_alphas(_IS_CONSTRAINT)


@dataclass(frozen=True)
class RotationArguments(NetworkArguments):
    """What --network_args ask for.

    constraint: how large Q may become, as a part of the number of outputs; 0: any.
    rescaled: whether each output also learns a factor.
    """

    constraint: float = 0.0
    rescaled: bool = False


class DiagOFTModule(OutputRotation):
    """One rotation in blocks, and a factor for each output where it is rescaled."""

    def __init__(
        self, point: AttachPoint, blocks: tuple[int, ...], constraint: float | None, *, rescaled: bool
    ) -> None:
        """blocks: the shape of `oft_blocks`.
        constraint: None: the file has none.
        """
        super().__init__(point)
        self.oft_blocks = nn.Parameter(torch.zeros(blocks))
        self.rescale: nn.Parameter | None
        out, *inputs = self.weight_shape
        ones = torch.ones(out, *(1 for _ in inputs))
        self.register_parameter("rescale", nn.Parameter(ones) if rescaled else None)
        self.register_buffer("alpha", None if constraint is None else torch.tensor(float(constraint)))
        self.has_limit = constraint is not None
        self.limit = (constraint or 0.0) * out

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.oft_blocks)
        if self.rescale is not None:
            nn.init.ones_(self.rescale)

    def make_matrices(self) -> Tensor:
        q = skew(self.oft_blocks)
        return cayley(limited(q, self.limit) if self.limit else q)

    def turn(self, x: Tensor) -> Tensor:
        added = self.rotate(x)
        if self.rescale is None:
            return added
        rescale = self.rescale.flatten().float()  # (out,)
        return added * rescale.to(x.dtype) + x * (rescale - 1).to(x.dtype)

    def rotate(self, x: Tensor) -> Tensor:
        """What the rotation adds to x, before it is rescaled."""
        return times_blocks(x, self.matrices())

    def file_tensors(self) -> dict[str, Tensor]:
        return self.in_file_shapes(self.state_dict())

    def took_values(self) -> None:
        if self.has_limit:
            self.limit = float(self.alpha) * self.weight_shape[0]


class ButterflyModule(DiagOFTModule):
    """A rotation after the other, of outputs that lie further apart each time."""

    def rotate(self, x: Tensor) -> Tensor:
        side, added = self.oft_blocks.shape[-1], torch.zeros_like(x)
        for stage, matrices in enumerate(self.matrices().mT):
            reach = 2**stage * side // 2
            near = exchanged(x + added, 2, reach, 1)
            added = added + exchanged(times_blocks(near, matrices), reach, 2, 1)
        return added


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that it does not know or whose values are wrong."""
    warn_of_idle(read_rotation(arguments, "networks.diag_oft"))


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
    """A new diag-OFT for the given parts of a model. It is not attached yet.

    dim: about how many outputs a block has, None is 4; it becomes a number that divides them.
    alpha: without effect.
    dropout: probability that a block is not rotated in a step.
    arguments: see RotationArguments.
    """
    asked = read_rotation(arguments, "networks.diag_oft")
    warn_of_idle_alpha(alpha, "networks.diag_oft", "see --network_args constraint=X")

    def new(point: AttachPoint, size: Size) -> DiagOFTModule:
        side, count = factorize(point.module.weight.shape[0], size.rank)
        return DiagOFTModule(point, (count, side, side), asked.constraint, rescaled=asked.rescaled)

    return build_in_blocks(
        model,
        KIND,
        asked,
        dim=dim or DEFAULT_DIM,
        alpha=None,
        dropout=dropout,
        parts=parts,
        seed=seed,
        like=like,
        new=new,
        known=rotation_of_file,
    )


def from_file(model: Model, path: Path) -> Network:
    """The OFT or BOFT in a file, for a model. Raises UserError when it is none or does not fit the model."""
    return blocks_from_file(model, path, KIND, rotation_of_file)


def read_rotation(arguments: dict[str, str], module: str) -> RotationArguments:
    """--network_args of a kind of LyCORIS' rotations."""
    own = {"constraint": _part, "rescaled": switch}
    return RotationArguments(**read_own_values(arguments, own, module, REFUSED))


def rotation_of_file(
    point: AttachPoint, size: Size, shapes: Shapes, source: Path | None
) -> DiagOFTModule | ButterflyModule:
    """The module for tensors of these shapes."""
    out, shape = point.module.weight.shape[0], shapes["oft_blocks"]
    *stages, count, side, other = shape if len(shape) in (3, 4) else (0, 0, 0)
    fits = side == other and count * side == out
    if stages and (side % 2 or 2 ** (stages[0] - 1) > count or stages[0] < 1):
        fits = False
    if not fits:
        raise does_not_fit(source, "oft_blocks", shape, point)
    kind = ButterflyModule if stages else DiagOFTModule
    constraint = size.alpha if "alpha" in shapes else None
    return kind(point, shape, constraint, rescaled="rescale" in shapes)


def _part(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError("expects a number of 0 or more")
    return number
