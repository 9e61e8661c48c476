"""Sort pictures into buckets, and write their latents and metadata with sizes, for fine-tuning.

python finetune/prepare_buckets_latents.py my_pictures meta_clean.json meta_lat.json model.safetensors
    --batch_size 4 --max_resolution 512,512 --mixed_precision no
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.bucket_tools import BucketOptions
from library.options.parser import parse
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    buckets: BucketOptions


def main() -> None:
    carry_out(parse(Run, __doc__)).raise_if_any()


def carry_out(run: Run) -> Problems:
    """Do what was asked for. Returns the problems of single pictures."""
    from library.preparation.buckets import prepare_buckets

    return prepare_buckets(run.buckets)


if __name__ == "__main__":
    run_command(main)
