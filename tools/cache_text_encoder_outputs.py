"""Compute the text-encoder outputs of a dataset once and keep them beside its pictures for training.

accelerate launch tools/cache_text_encoder_outputs.py --pretrained_model_name_or_path model.safetensors
    --train_data_dir my_pictures --resolution 512 --enable_bucket --mixed_precision bf16

Takes the options of the training that will use them. Several processes share the work.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.caching_tools import CacheCommandOptions
from library.problems import run_command
from library.training.start.caching_runs import TextCachingRun
from library.training.start.command import begin


@dataclass(frozen=True)
class Run(TextCachingRun):
    command: CacheCommandOptions


def main() -> None:
    run, pictures = begin(Run, __doc__)

    from library.training.start.caching_alone import fill_caches_alone

    fill_caches_alone(run, pictures, is_sdxl=run.command.sdxl)


if __name__ == "__main__":
    run_command(main)
