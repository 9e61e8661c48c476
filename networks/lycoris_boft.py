"""LyCORIS' BOFT (Liu et al. 2023, arXiv:2311.06243): rotations of what a layer gives, one after the other,
each of outputs that lie twice as far apart as before.

Its files and arguments are those of `networks.diag_oft`, with `oft_blocks` (stages, blocks, side, side).
PEFT's BOFT, which rotates what a layer is given, is `networks.boft`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from library.models.base import AttachPoint, Model
from library.network.arguments import warn_of_idle
from library.network.block_building import build_in_blocks, warn_of_idle_alpha
from library.network.network import Network
from library.network.sizes import Size
from networks.diag_oft import KIND, ButterflyModule, from_file, read_rotation, rotation_of_file

__all__ = ["check_arguments", "create", "from_file"]

DEFAULT_DIM = 10  # with less, none of a U-Net's layers could have one: 320, 640, ... are 5 * 2^k


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that it does not know or whose values are wrong."""
    warn_of_idle(read_rotation(arguments, "networks.lycoris_boft"))


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

    dim: how many outputs a block has at most, None is 10; the number of blocks is a power of two. Layers
    where that is impossible get no module.
    alpha: without effect.
    dropout: probability that a block is not rotated in a step.
    arguments: as for diag-OFT.
    """
    asked = read_rotation(arguments, "networks.lycoris_boft")
    warn_of_idle_alpha(alpha, "networks.lycoris_boft", "see --network_args constraint=X")

    def new(point: AttachPoint, size: Size) -> ButterflyModule | None:
        side, count = power_of_two_blocks(point.module.weight.shape[0], size.rank)
        if not side:
            return None
        shape = (stages_of(count), count, side, side)
        return ButterflyModule(point, shape, asked.constraint, rescaled=asked.rescaled)

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


def power_of_two_blocks(out: int, most: int) -> tuple[int, int]:
    """The side and the number of blocks: the largest even side up to `most` of which the number is a power of
    two; (0, 0) when there is none.
    """
    for side in range(min(most, out) // 2 * 2, 0, -2):
        count = out // side
        if out % side == 0 and count & (count - 1) == 0:
            return side, count
    return 0, 0


def stages_of(count: int) -> int:
    """How many rotations it takes for every output to reach every other."""
    return (count - 1).bit_count() + 1
