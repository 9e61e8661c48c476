"""Pictures of twice the size by sd-scripts' latent upscaler; also a module for --highres_fix_upscaler.

python tools/latent_upscaler.py --vae_path vae.safetensors --weights upscaler-v1-e100-220.safetensors \
    --image_pattern "pictures/*.png" --output_dir large
python gen_img.py --ckpt model.safetensors --prompt "a cat" --highres_fix_scale 0.5 --strength 0.5 \
    --highres_fix_upscaler tools.latent_upscaler --highres_fix_upscaler_args "weights=upscaler.safetensors"
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.drawing_tools import UpscalingOptions
from library.options.parser import parse
from library.problems import run_command

if TYPE_CHECKING:
    from library.generation.latent_upscaler import LatentUpscaler


@dataclass(frozen=True)
class Run:
    upscaling: UpscalingOptions


def main() -> None:
    options = parse(Run, __doc__).upscaling
    from library.generation.upscaling import upscale_files

    upscale_files(options)


def create_upscaler(weights: str) -> LatentUpscaler:
    """The upscaler, as --highres_fix_upscaler asks for it. weights: its file."""
    from library.generation.latent_upscaler import load_upscaler_network

    return load_upscaler_network(Path(weights))


if __name__ == "__main__":
    run_command(main)
