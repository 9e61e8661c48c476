"""Write a network file as a program that is named spells it, whatever program it comes from.

python tools/convert_network.py my_lora.safetensors --to diffusers --save_to pytorch_lora_weights.safetensors
python tools/convert_network.py peft_folder --to kohya --save_to my_lora.safetensors --save_precision fp16
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import ConvertNetworkOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    conversion: ConvertNetworkOptions


def main() -> None:
    options = parse(Run, __doc__).conversion
    from library.network_tools.conversion import convert_file

    convert_file(options)


if __name__ == "__main__":
    run_command(main)
