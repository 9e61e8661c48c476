"""Make hints for a ControlNet of a folder of pictures: edges, lines, blurred, small or grey copies, masks.

python tools/make_hints.py my_pictures my_hints --kind canny
python tools/make_hints.py my_pictures my_hints --kind blur --radius 12
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.hint_tools import HintOptions
from library.options.parser import parse
from library.problems import run_command

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Run:
    hints: HintOptions


def main() -> None:
    options = parse(Run, __doc__).hints
    from library.data.pictures.hint_kinds import make_hint
    from library.preparation.pngs import write_pngs

    def draw(picture: Path) -> Image.Image:
        return make_hint(str(picture), options)

    write_pngs(options.pictures, options.hints, draw, overwrite=options.overwrite, what="hint").raise_if_any()


if __name__ == "__main__":
    run_command(main)
