"""Say what a network file is, whether it is sound, and which programs read it.

python networks/verify.py my_lora.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.network_tools import VerifyNetworkOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    verification: VerifyNetworkOptions


def main() -> None:
    options = parse(Run, __doc__).verification
    from library.network.files import read_network
    from library.network_tools.verification import describe

    for line in describe(read_network(options.file)):
        print(line)


if __name__ == "__main__":
    run_command(main)
