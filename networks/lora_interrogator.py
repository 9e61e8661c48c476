"""List the words that a network changes most in the text encoder of SD 1.x or 2.x.

python networks/lora_interrogator.py --sd_model model.safetensors --model my_lora.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import InterrogateNetworkOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    interrogation: InterrogateNetworkOptions


def main() -> None:
    options = parse(Run, __doc__).interrogation
    from library.network_tools.interrogation import interrogate

    interrogate(options)


if __name__ == "__main__":
    run_command(main)
