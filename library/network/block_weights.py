"""Weights by block (`--lbws`, `lbw=`): how strongly each block of the U-Net counts.

A list has 12, 17, 20 or 26 numbers. 26 stand for the text encoders (BASE), input blocks 0 to 11, the middle
block and output blocks 0 to 11 of the original U-Net; 17 leave out the blocks of SD 1.x and 2.x that have no
attention, 20 those that SDXL does not have, 12 both. Blocks that a list leaves out count whole.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

_ALL = tuple(range(26))
_MIDDLE = 13
# For each length of a list, the blocks that its numbers stand for.
_BLOCKS = {
    12: (0, 5, 6, 8, 9, 13, 14, 15, 16, 17, 18, 19),
    17: (0, 2, 3, 5, 6, 8, 9, 13, 17, 18, 19, 20, 21, 22, 23, 24, 25),
    20: (*range(10), *range(13, 23)),
    26: _ALL,
}
_DIFFUSERS = re.compile(r"(down|up)_blocks_(\d+)_(?:attentions|resnets|downsamplers|upsamplers)_(\d+)_")
_SAMPLER = re.compile(r"(?:down|up)samplers")
_ORIGINAL = re.compile(r"(input|output)_blocks_(\d+)_")


def read_block_weights(text: str) -> tuple[float, ...]:
    """A JSON list as 26 weights. Raises ValueError that says what is expected."""
    expected = f"expects a list of {', '.join(map(str, _BLOCKS))} numbers, such as [1,0.5,...]"
    try:
        given = json.loads(text)
    except ValueError:
        raise ValueError(expected) from None
    if not isinstance(given, list) or len(given) not in _BLOCKS:
        raise ValueError(expected)
    if not all(type(weight) in (int, float) and math.isfinite(weight) for weight in given):
        raise ValueError(expected)
    weights = [1.0] * len(_ALL)
    for block, weight in zip(_BLOCKS[len(given)], given, strict=True):
        weights[block] = float(weight)
    return tuple(weights)


# What users call lists of 17, as the block weights of AUTOMATIC1111's extension.
_NAMED = {
    "NONE": "00000000000000000",
    "ALL": "11111111111111111",
    "INS": "11100000000000000",
    "IND": "10001110000000000",
    "INALL": "11111110000000000",
    "MIDD": "10001111111100000",
    "OUTD": "10000000111100000",
    "OUTS": "10000000000011111",
    "OUTALL": "10000000111111111",
}


def named_block_weights(text: str) -> tuple[float, ...]:
    """A list of numbers with commas, or the name of one, as 26 weights. A block that the list leaves out
    counts as the nearest one that it has, on the same side of the middle. Raises ValueError that says what is
    expected.
    """
    words: Sequence[str] = _NAMED.get(text.upper()) or text.split(",")
    counts = ", ".join(map(str, _BLOCKS))
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) not in _BLOCKS or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expects lbw={'|'.join(_NAMED)} or {counts} numbers with commas")
    given = dict(zip(_BLOCKS[len(numbers)], numbers, strict=True))

    def nearest(block: int) -> int:
        same = [one for one in given if _side(one) == _side(block)]
        return min(same, key=lambda one: (abs(one - block), one))

    return tuple(given[nearest(block)] for block in _ALL)


def _side(block: int) -> tuple[bool, bool, bool]:
    return block > 0, block >= _MIDDLE, block > _MIDDLE


def block_of(module: str) -> int | None:
    """Which of the 26 a module is in, by its name in a file; None: in none of them.

    Without a model there is nothing but the name to tell it from.
    """
    if re.match(r"[a-z]+_te\d?_", module):
        return 0
    if "mid_block" in module or "middle_block" in module:
        return _MIDDLE
    if found := _ORIGINAL.search(module):
        number = int(found[2])
        return number + (1 if found[1] == "input" else _MIDDLE + 1)
    if found := _DIFFUSERS.search(module):
        number = 3 * int(found[2]) + (2 if _SAMPLER.search(found[0]) else int(found[3]))
        return number + (2 if found[1] == "down" else _MIDDLE + 1)
    return None


def weight_of(module: str, weights: tuple[float, ...]) -> float:
    """How strongly a module counts."""
    block = block_of(module)
    return 1.0 if block is None or block >= len(weights) else weights[block]
