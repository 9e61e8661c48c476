"""List the tensors of a network file: name, shape, mean and least absolute value.

python networks/check_lora_weights.py my_lora.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.models.weights import open_tensors
from library.options.network_tools import CheckNetworkOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    checks: CheckNetworkOptions


def main() -> None:
    options = parse(Run, __doc__).checks
    from library.models.values import all_finite
    from library.network.kinds import KINDS

    file = open_tensors(options.file)
    endings = tuple(f".{sign}" for kind in KINDS.values() for sign in kind.signs)
    names = [name for name in sorted(file.shapes) if options.show_all_keys or name.endswith(endings)]
    print(f"{len(names)} of {len(file.shapes)} tensors: name, shape, mean and least absolute value")
    bad = []
    for name in names:
        tensor = file.read(name)
        absolute = tensor.float().abs()
        figures = f"{absolute.mean():.6g}, {absolute.min():.6g}" if tensor.numel() else "no values"
        print(f"{name}, {tuple(tensor.shape)}, {figures}")
        if not all_finite(tensor):
            bad.append(name)
    if bad:
        print(f"{len(bad)} of them hold values that are no numbers, e.g. {bad[0]}")


if __name__ == "__main__":
    run_command(main)
