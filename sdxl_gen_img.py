"""Draw pictures with an SDXL model, with or without networks:

    python sdxl_gen_img.py --ckpt sdxl.safetensors --prompt "a cat --n blurry --d 1" --outdir pictures
    python sdxl_gen_img.py --ckpt sdxl.safetensors --from_file prompts.txt --original_width 2048 \\
        --original_height 2048 --network_weights cat.safetensors

A prompt may end in options: --w width --h height --s steps --l scale --n negative prompt --d seed,seed,...,
--ow and --oh original size, --nw and --nh the negative prompt's, --ct crop top --cl crop left, and more.
The settings of a picture are in its PNG text.
"""

from __future__ import annotations

from dataclasses import dataclass

import gen_img
from library.problems import run_command


@dataclass(frozen=True)
class Run(gen_img.Run):
    pass


def main() -> None:
    gen_img.draw_pictures(__doc__, family="sdxl")


if __name__ == "__main__":
    run_command(main)
