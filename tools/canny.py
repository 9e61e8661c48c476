"""Write the edges of a picture, white on black (Canny).

python tools/canny.py --input cat.jpg --output edges.png --thres1 32 --thres2 224
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.files import whole_file
from library.options.hint_tools import CannyOptions
from library.options.parser import parse
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    canny: CannyOptions


def main() -> None:
    options = parse(Run, __doc__).canny

    import numpy as np
    from PIL import Image

    from library.data.pictures.hint_kinds import canny
    from library.data.pictures.images import load_image

    edges = canny(np.asarray(load_image(options.input)), options.thres1, options.thres2)
    form = Image.registered_extensions()[options.output.suffix.lower()]
    with whole_file(options.output) as temporary:
        Image.fromarray(edges[:, :, 0]).save(temporary, format=form)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run_command(main)
