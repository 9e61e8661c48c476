"""Which block a number of --lbws stands for, against sd-scripts' tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.network.block_weights import block_of, named_block_weights, read_block_weights, weight_of

LBW = json.loads((Path(__file__).parents[2] / "data" / "network_tools.json").read_text(encoding="utf-8"))[
    "lbw"
]
NAMES = LBW["sd1_index"] | LBW["sdxl_index"]


@pytest.mark.parametrize("length", [12, 17, 20, 26])
def test_numbers_stand_for_the_blocks_of_their_list(length: int) -> None:
    weights = read_block_weights(json.dumps([number / 100 for number in range(length)]))
    blocks = LBW["target_index_by_length"][str(length)]
    assert [weights[block] for block in blocks] == [number / 100 for number in range(length)]
    assert {weights[block] for block in range(26) if block not in blocks} <= {1.0}


@pytest.mark.parametrize(("name", "block"), NAMES.items())
def test_modules_are_in_the_block_of_their_name(name: str, block: int) -> None:
    assert block_of(name) == block


def test_what_is_in_no_block_counts_whole() -> None:
    weights = read_block_weights(json.dumps([0] * 26))
    assert block_of("lora_unet_conv_in") is None
    assert weight_of("lora_unet_conv_in", weights) == 1 and weight_of("lora_te_x", weights) == 0


@pytest.mark.parametrize("text", ["", "1", "[1,2]", '["1"]', str([True] * 12), "[NaN" + ",1" * 11 + "]"])
def test_lists_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expects a list of 12, 17, 20, 26 numbers"):
        read_block_weights(text)


def test_names_of_lists_mean_every_block() -> None:
    assert named_block_weights("none") == (0.0,) * 26
    assert named_block_weights("ALL") == (1.0,) * 26
    assert named_block_weights("OUTALL") == (1.0, *[0.0] * 12, 0.0, *[1.0] * 12)
    assert named_block_weights("INALL") == (1.0, *[1.0] * 12, 0.0, *[0.0] * 12)
    assert named_block_weights("0.5" + ",1" * 11)[0] == 0.5
