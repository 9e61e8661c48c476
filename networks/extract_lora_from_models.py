"""Write what a tuned model changed as a LoRA.

python networks/extract_lora_from_models.py --model_org base.safetensors --model_tuned tuned.safetensors \
    --save_to difference.safetensors --dim 16 --conv_dim 16
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import ExtractNetworkOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    extraction: ExtractNetworkOptions


def main() -> None:
    options = parse(Run, __doc__).extraction
    from library.network_tools.extraction import extract_file

    extract_file(options)


if __name__ == "__main__":
    run_command(main)
