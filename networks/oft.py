"""OFT (Qiu et al. 2023, arXiv:2306.07280): a rotation of what a layer of the U-Net gives, in equal blocks.

    Q = A - A^T, shrunk to a norm of alpha * out;  R = (I + Q)(I - Q)^-1;  W' = R^T W

The files are sd-scripts': `oft_unet_<layer>.oft_blocks` (blocks, out / blocks, out / blocks) and `.alpha`. By
default it covers the attention's projections; with enable_all_linear the transformers' other linear layers,
with enable_conv residual and sampling blocks too. LyCORIS' OFT is `networks.diag_oft`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from library.models.base import AttachPoint, Model
from library.network.arguments import switch, warn_of_idle
from library.network.block_arguments import ConvolutionArguments, read_own_values
from library.network.block_building import blocks_from_file, build_in_blocks, does_not_fit
from library.network.building import DEFAULT_DIM
from library.network.family import Shapes
from library.network.network import Network
from library.network.rotating import OutputRotation
from library.network.rotation import cayley, limited, skew
from library.network.sizes import Size
from library.problems import UserError, warn

KIND = "oft"
DEFAULT_ALPHA = 1e-3
ATTENTION = (".attn1.", ".attn2.")


@dataclass(frozen=True)
class OFTArguments(ConvolutionArguments):
    """What --network_args ask for.

    enable_all_linear: whether the transformers' feed-forward layers and projections get modules too.
    """

    enable_all_linear: bool = False

    def covers(self, point: AttachPoint) -> bool:
        """Whether a layer gets a module."""
        is_attention = any(name in f".{point.path}." for name in ATTENTION)
        return is_attention or self.enable_all_linear or point.parent != "Transformer2DModel"


class OFTModule(OutputRotation):
    """A rotation in blocks of the layer's outputs; all blocks are 0 at first, which changes nothing.

    limit: the largest norm of Q over all blocks together; None: any.
    """

    def __init__(self, point: AttachPoint, blocks: int, alpha: float | None) -> None:
        """blocks: how many.
        alpha: the limit, as a part of the number of outputs; None: the file has none, and there is no limit.
        """
        super().__init__(point)
        out = self.weight_shape[0]
        self.oft_blocks = nn.Parameter(torch.zeros(blocks, out // blocks, out // blocks))
        self.register_buffer("alpha", None if alpha is None else torch.tensor(float(alpha)))
        self.limit = None if alpha is None else alpha * out

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.oft_blocks)

    def make_matrices(self) -> Tensor:
        q = skew(self.oft_blocks)
        if self.limit is not None:
            q = limited(q, self.limit)
        return cayley(q)

    def took_values(self) -> None:
        if self.limit is not None:
            self.limit = float(self.alpha) * self.weight_shape[0]


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that OFT does not know or whose values are wrong."""
    asked = _read(arguments)
    warn_of_idle(asked if asked.conv_dim or not asked.enable_conv else replace(asked, conv_dim=1))


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
    """A new OFT for the U-Net of a model. It is not attached yet.

    dim: how many blocks a layer's outputs have, None is 4.
    alpha: how large Q may become, as a part of the number of outputs; None is 1e-3.
    dropout: probability that a block is not rotated in a step.
    arguments: see OFTArguments; block_dims and block_alphas mean the same as dim and alpha.
    like: a file whose layers, numbers of blocks and alphas it has instead; not its values.
    Raises UserError when a layer cannot be divided so, or an alpha is 0, which would allow no rotation.
    """
    if "unet" not in parts:
        raise UserError.of("--network_train_text_encoder_only", "networks.oft is for the U-Net only")
    asked, dim = _read(arguments), dim or DEFAULT_DIM
    alpha = DEFAULT_ALPHA if alpha is None else alpha
    asked = replace(asked, **asked.with_sizes(dim, alpha))
    return build_in_blocks(
        model,
        KIND,
        asked,
        dim=dim,
        alpha=alpha,
        dropout=dropout,
        parts=("unet",),
        seed=seed,
        like=like,
        new=_new,
        known=_known,
        covers=asked.covers,
    )


def from_file(model: Model, path: Path) -> Network:
    """The OFT in a file, for a model. A missing alpha means no limit, an alpha of 0 no rotation.

    Raises UserError when the file is no OFT or does not fit the model.
    """
    network = blocks_from_file(model, path, KIND, _known)
    zeros = [name for name, one in network.by_name.items() if isinstance(one, OFTModule) and one.limit == 0]
    if zeros:
        warn(f"{path}: alpha is 0 in {len(zeros)} modules, e.g. {zeros[0]}, which allows no rotation")
    return network


def _read(arguments: dict[str, str]) -> OFTArguments:
    own = {"enable_all_linear": switch, "enable_conv": switch}
    return OFTArguments(**read_own_values(arguments, own, "networks.oft"))


def _new(point: AttachPoint, size: Size) -> OFTModule:
    out = point.module.weight.shape[0]
    if out % size.rank:
        cause = f"the {out} outputs of {point.path} cannot be divided into {size.rank} blocks"
        raise UserError.of("--network_dim", cause, "choose a number that divides them, e.g. 4")
    if size.alpha == 0:
        cause = "limits the rotation with networks.oft, and 0 allows none"
        raise UserError.of("--network_alpha", cause, f"give more, or leave it out ({DEFAULT_ALPHA})")
    return OFTModule(point, size.rank, size.alpha)


def _known(point: AttachPoint, size: Size, shapes: Shapes, source: Path | None) -> OFTModule:
    out, shape = point.module.weight.shape[0], shapes["oft_blocks"]
    if len(shape) != 3 or shape[1] != shape[2] or shape[0] * shape[1] != out:
        raise does_not_fit(source, "oft_blocks", shape, point)
    return OFTModule(point, shape[0], size.alpha if "alpha" in shapes else None)
