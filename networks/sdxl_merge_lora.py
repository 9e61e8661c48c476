"""Merge LoRAs of SDXL into one, or into a checkpoint, block by block where --lbws says so.

python networks/sdxl_merge_lora.py --sd_model sdxl.safetensors --models a.safetensors --ratios 0.8 \
    --save_to sdxl_with_a.safetensors --save_precision fp16
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import (
    BlockWeightOptions,
    CheckpointTargetOptions,
    MergedRankOptions,
    MergeNetworksOptions,
)
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    merging: MergeNetworksOptions
    checkpoint: CheckpointTargetOptions
    rank: MergedRankOptions
    blocks: BlockWeightOptions


def main() -> None:
    run = parse(Run, __doc__)
    from library.network_tools.merge_command import merge_networks

    merge_networks(run.merging, run.checkpoint, run.rank, run.blocks, family="sdxl")


if __name__ == "__main__":
    run_command(main)
