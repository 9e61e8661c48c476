"""Split a DyLoRA into LoRAs of its lower ranks.

python networks/extract_lora_from_dylora.py --model dylora.safetensors --save_to split.safetensors --unit 4
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import SplitNetworkOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    splitting: SplitNetworkOptions


def main() -> None:
    options = parse(Run, __doc__).splitting
    from library.network_tools.splitting import split_file

    split_file(options)


if __name__ == "__main__":
    run_command(main)
