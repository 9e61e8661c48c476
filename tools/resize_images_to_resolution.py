"""Make smaller copies of a folder's pictures, of one size or several.

python tools/resize_images_to_resolution.py my_pictures smaller --max_resolution 512x512,384x384
    --copy_associated_files
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.parser import parse
from library.options.resize_tools import ResizeOptions
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    resizing: ResizeOptions


def main() -> None:
    options = parse(Run, __doc__).resizing
    from library.preparation.resizing import resize_pictures

    resize_pictures(options).raise_if_any()


if __name__ == "__main__":
    run_command(main)
