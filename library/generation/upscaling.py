"""Files of pictures, in twice their size."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from library.console import progress_bar, say
from library.data.pictures.images import load_image
from library.files import whole_file
from library.generation.decoding import image_of
from library.generation.latent_upscaler import LatentUpscaler, load_upscaler_network
from library.models import FAMILIES, check_vae
from library.models.ldm.building import build_part
from library.models.ldm.reading import read_vae
from library.options.drawing_tools import UpscalingOptions
from library.paths import matching_paths
from library.problems import Problems, UserError
from library.wording import counted

FAMILY = "sd1"  # whose VAE the upscaler's weights are made for
SIDES = 8  # pixels that sides are multiples of


def upscale_files(options: UpscalingOptions) -> None:
    """Write each picture in twice its size, as NAME_x2.png. Those that cannot be read are told at the end.

    Raises UserError, before anything is written, for wrong weights and patterns that match nothing.
    """
    problems = Problems()
    pictures = problems.attempt(_matching, options.image_pattern) or []
    source = problems.attempt(check_vae, options.vae_path)
    upscaler = problems.attempt(load_upscaler_network, options.weights)
    problems.raise_if_any()
    assert source is not None
    assert upscaler is not None
    _, layout = importlib.import_module(FAMILIES[FAMILY].module).MODELS[FAMILY]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = build_part(read_vae(source, layout), dtype=torch.float32, device=device)
    done = 0
    for path in progress_bar(pictures, desc="pictures", unit="img"):
        image = problems.attempt(load_image, path)
        if image is None:
            continue
        target = options.output_dir / f"{path.stem}_x2.png"
        with whole_file(target) as temporary:
            _enlarged(vae, upscaler, image, options).save(temporary, format="PNG")
        done += 1
        if options.debug:
            say(f"{path} -> {target}")
    say(f"{counted(done, 'picture')} in {options.output_dir}")
    problems.raise_if_any()


@torch.no_grad()
def _enlarged(
    vae: Any, upscaler: LatentUpscaler, image: Image.Image, options: UpscalingOptions
) -> Image.Image:
    width, height = (2 * side // SIDES * SIDES for side in image.size)
    sizes = (options.batch_size, options.vae_batch_size)
    latents = upscaler.upscale(vae, [image], None, torch.float32, width, height, *sizes)
    return image_of(vae.decode(latents / vae.config.scaling_factor).sample[0])


def _matching(pattern: str) -> list[Path]:
    """The files of a pattern, by name."""
    found = sorted(path for path in matching_paths(pattern) if path.is_file())
    if not found:
        raise UserError.of(f"--image_pattern {pattern}", "matches no file", "check the path")
    return found
