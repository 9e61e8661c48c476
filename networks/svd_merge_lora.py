"""Merge LoRAs into one of a given rank: the best LoRA of this rank for their exact sum.

python networks/svd_merge_lora.py --models a.safetensors b.safetensors --ratios 0.7 0.3 \
    --new_rank 16 --save_to merged.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import BlockWeightOptions, MergeNetworksOptions, SvdRankOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    merging: MergeNetworksOptions
    rank: SvdRankOptions
    blocks: BlockWeightOptions


def main() -> None:
    run = parse(Run, __doc__)
    from library.network_tools.commands import merge_into_one, read_terms
    from library.network_tools.factors import Factors

    rank, conv_rank = run.rank.new_rank, run.rank.new_conv_rank or run.rank.new_rank

    def most(changes: Sequence[Factors]) -> int:
        return conv_rank if any(change.has_kernel for change in changes) else rank

    merge_into_one(run.merging, read_terms(run.merging, run.blocks), most)


if __name__ == "__main__":
    run_command(main)
