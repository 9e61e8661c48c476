"""Change the rank of a LoRA, losing as little of it as can be.

python networks/resize_lora.py --model big.safetensors --new_rank 16 --save_to small.safetensors
python networks/resize_lora.py --model big.safetensors --new_rank 64 \
    --dynamic_method sv_fro --dynamic_param 0.9 --save_to small.safetensors --save_precision fp16
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import ResizeNetworkOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    resizing: ResizeNetworkOptions


def main() -> None:
    options = parse(Run, __doc__).resizing
    from library.network_tools.resize_command import resize_file

    resize_file(options)


if __name__ == "__main__":
    run_command(main)
