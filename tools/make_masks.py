"""Make masks of a folder of pictures, white where their subject is, to learn nothing of the background.

python tools/make_masks.py my_pictures my_masks
python tools/make_masks.py my_pictures my_masks --by colour --tolerance 15 --grow 2 --feather 1.5
python tools/make_masks.py my_pictures my_masks --model u2net.onnx

A training uses them with --conditioning_data_dir my_masks --masked_loss.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.mask_tools import MaskOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    masks: MaskOptions


def main() -> None:
    options = parse(Run, __doc__).masks
    from library.preparation.masks import make_masks

    make_masks(options).raise_if_any()


if __name__ == "__main__":
    run_command(main)
