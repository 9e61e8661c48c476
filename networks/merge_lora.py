"""Merge LoRAs into one, or into a checkpoint of SD 1.x, 2.x or SDXL.

python networks/merge_lora.py --models a.safetensors b.safetensors --ratios 0.7 0.3 \
    --save_to merged.safetensors
python networks/merge_lora.py --sd_model model.safetensors --models a.safetensors --ratios 0.8 \
    --save_to model_with_a.safetensors --save_precision fp16
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import (
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


def main() -> None:
    run = parse(Run, __doc__)
    from library.network_tools.merge_command import merge_networks

    merge_networks(run.merging, run.checkpoint, run.rank)


if __name__ == "__main__":
    run_command(main)
