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
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    buckets: BucketOptions


def main() -> None:
    options = parse(Run, __doc__).buckets
    from library.preparation.buckets import prepare_buckets

    prepare_buckets(options).raise_if_any()


if __name__ == "__main__":
    run_command(main)
