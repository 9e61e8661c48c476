"""Ranks, alphas and learning rates that each block of the U-Net has of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from library.models.blocks import BlockSpans
from library.network.arguments import NetworkArguments, Preset, Weights
from library.network.sizes import NOTHING, Size, Sizes
from library.problems import Problems, UserError, warn


@dataclass(frozen=True)
class Blocks:
    """What each block of the U-Net gets, by its number.

    sizes: of its modules.
    weights: what its learning rate is multiplied by; None: all learn alike, and are one group in logs.
    """

    sizes: Sequence[Sizes]
    weights: Sequence[float] | None


def settle_blocks(arguments: NetworkArguments, spans: BlockSpans, plain: Size) -> Blocks:
    """What the arguments mean for a U-Net with these blocks.

    plain: the size for linear layers of blocks that have none of their own.
    Raises UserError when a list has not as many numbers as there are blocks.
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


def _sizes_of(given: NetworkArguments, number: int, plain: Size) -> Sizes:
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


def _rate_weights(arguments: NetworkArguments, spans: BlockSpans) -> list[float] | None:
    """The weight of each block; below the threshold it is 0. None when no weight was given."""
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
