"""What each block of the U-Net gets of a LoRA: ranks, alphas and learning rates of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from library.models.blocks import BlockSpans
from library.network.arguments import LoRAArguments, Preset, Weights
from library.problems import Problems, UserError, warn


@dataclass(frozen=True)
class Size:
    """Rank and alpha of a module; alpha 0 means as the rank. There is no module of rank 0."""

    rank: int
    alpha: float


NOTHING = Size(0, 0.0)


@dataclass(frozen=True)
class Sizes:
    """Of linear layers and 1x1 convolutions, and of larger convolutions."""

    linear: Size
    conv: Size


@dataclass(frozen=True)
class Blocks:
    """By a block's number: sizes of its modules, and by what its learning rate is multiplied (None: all
    alike, and one group in logs).
    """

    sizes: Sequence[Sizes]
    weights: Sequence[float] | None


def settle_blocks(arguments: LoRAArguments, spans: BlockSpans, plain: Size) -> Blocks:
    """What the arguments mean for a U-Net with these blocks.

    plain: of linear layers in blocks that have no settings of their own.
    Raises UserError when a list does not have a number for each block.
    """
    problems = Problems()
    for name in ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"):
        given = getattr(arguments, name)
        if given is not None and len(given) != spans.total:
            cause = f"has {len(given)} values, this model has {spans.total} blocks"
            problems.add(f"--network_args {name}", cause)
    weights = problems.attempt(_rate_weights, arguments, spans)
    problems.raise_if_any()
    sizes = [_sizes_of(arguments, number, plain) for number in range(spans.total)]
    if weights is not None:
        nothing = Sizes(NOTHING, NOTHING)
        sizes = [size if weight else nothing for size, weight in zip(sizes, weights, strict=True)]
    return Blocks(sizes, weights)


def _sizes_of(given: LoRAArguments, number: int, plain: Size) -> Sizes:
    conv = Size(given.conv_dim or 0, 1.0 if given.conv_alpha is None else given.conv_alpha)
    return Sizes(
        linear=_of_block(plain, given.block_dims, given.block_alphas, number),
        conv=_of_block(conv, given.conv_block_dims, given.conv_block_alphas, number),
    )


def _of_block(
    plain: Size, ranks: tuple[int, ...] | None, alphas: tuple[float, ...] | None, number: int
) -> Size:
    return Size(
        plain.rank if ranks is None else ranks[number], plain.alpha if alphas is None else alphas[number]
    )


def _rate_weights(arguments: LoRAArguments, spans: BlockSpans) -> list[float] | None:
    """By block; those below the threshold are 0. None when no weight was given."""
    if not arguments.weighs_blocks:
        return None
    problems, weights = Problems(), [1.0] * spans.total
    for name, span in (("down", spans.down), ("mid", spans.mid), ("up", spans.up)):
        given: Weights | None = getattr(arguments, f"{name}_lr_weight")
        if given is not None:
            found = problems.attempt(_weights_of, f"--network_args {name}_lr_weight", given, len(span))
            weights[span.start : span.stop] = found or [1.0] * len(span)
    problems.raise_if_any()
    return [0.0 if weight <= arguments.block_lr_zero_threshold else weight for weight in weights]


def _weights_of(where: str, given: Weights, count: int) -> list[float]:
    if isinstance(given, Preset):
        return given.weights(count)
    if len(given) > count:
        raise UserError.of(where, f"has {len(given)} values, this model has {count} such blocks")
    if len(given) < count:
        warn(f"{where} has {len(given)} values for {count} blocks: those of the others are 1")
    return [*given, *[1.0] * (count - len(given))]
