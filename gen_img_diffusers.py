"""Draw pictures; the same as gen_img.py, under sd-scripts' name for SD 1.x and SD 2.x:

    python gen_img_diffusers.py --ckpt model.safetensors --prompt "a cat --n blurry --d 1" --outdir pictures
    python gen_img_diffusers.py --ckpt model.safetensors --from_file prompts.txt --images_per_prompt 4 \\
        --batch_size 4 --network_weights cat.safetensors --network_mul 0.8

A prompt may end in options: --w width --h height --s steps --l scale --n negative prompt --d seed,seed,...
and more. The settings of a picture are in its PNG text.
"""

from __future__ import annotations

from dataclasses import dataclass

import gen_img
from library.problems import run_command


@dataclass(frozen=True)
class Run(gen_img.Run):
    pass


def main() -> None:
    gen_img.draw_pictures(__doc__)


if __name__ == "__main__":
    run_command(main)
