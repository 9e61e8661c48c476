"""--network_args of kinds that change a layer block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from library.network.arguments import LORAPLUS, READERS, NetworkArguments, read_values
from library.problems import warn

NO_HALVES = "its modules have no two halves of which one could learn faster"
# Why a kind has no argument that LoRA has.
NOT_OF_BLOCKS: Mapping[str, str] = dict.fromkeys(LORAPLUS, NO_HALVES)
_ALPHAS = ("conv_alpha", "block_alphas", "conv_block_alphas")


def without_alphas(reason: str) -> dict[str, str]:
    """What a kind without alphas refuses, see `read_own_values`."""
    return {**NOT_OF_BLOCKS, **dict.fromkeys(_ALPHAS, reason)}


@dataclass(frozen=True)
class ConvolutionArguments(NetworkArguments):
    """What --network_args ask for, of kinds that have a switch for 3x3 convolutions.

    enable_conv: whether those get modules, as large as those of linear layers where conv_dim is not given.
    """

    enable_conv: bool = False

    def with_sizes(self, dim: int, alpha: float) -> dict[str, Any]:
        """What its convolutions have, as fields to replace."""
        if not self.enable_conv:
            return {}
        return {
            "conv_dim": self.conv_dim or dim,
            "conv_alpha": alpha if self.conv_alpha is None else self.conv_alpha,
        }


def read_own_values(
    arguments: Mapping[str, str],
    own: Mapping[str, Callable[[str], Any]],
    module: str,
    refused: Mapping[str, str] = NOT_OF_BLOCKS,
) -> dict[str, Any]:
    """--network_args of a kind as values, see `read_values`.

    own: readers of the arguments that LoRA does not have.
    refused: why the kind has no argument that LoRA has.
    """
    return read_values(arguments, READERS | dict(own), module, refused)


def block_dropout(dropout: float | None, rank_dropout: float) -> float:
    """The probability that a block changes nothing in a step: --network_dropout and rank_dropout mean the
    same for blocks, and the former wins.
    """
    if dropout is not None and rank_dropout:
        warn("--network_args rank_dropout has no effect beside --network_dropout, which means the same here")
    return rank_dropout if dropout is None else dropout


def whole_number(text: str) -> int:
    """A number of 1 or more. Raises ValueError for any other text."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError("expects a whole number of 1 or more")
    return int(text)


def a_probability(text: str) -> float:
    """A number of 0 to below 1. Raises ValueError for any other text."""
    return cast("float", READERS["module_dropout"](text))


def a_positive_number(text: str) -> float:
    """A number above 0. Raises ValueError for any other text."""
    return cast("float", READERS["loraplus_lr_ratio"](text))
