"""Draw pictures with a Stable Diffusion model (SD 1.x, SD 2.x or SDXL), with or without networks:

    python gen_img_diffusers.py --ckpt model.safetensors --prompt "a cat --n blurry --d 1" --outdir pictures
    python gen_img_diffusers.py --ckpt model.safetensors --from_file prompts.txt --images_per_prompt 4 \\
        --batch_size 4 --network_module networks.lora --network_weights cat.safetensors --network_mul 0.8

A prompt may end in options: --w width --h height --s steps --l scale --n negative prompt --d seed,seed,...
The settings of a picture are in its PNG text.
"""

from __future__ import annotations

from dataclasses import dataclass

from library.generation.reading import read
from library.options.console import ConsoleOptions
from library.options.generation import (
    GenerationOptions,
    GeneratorComputeOptions,
    GeneratorControlOptions,
    GeneratorInpaintingOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
    GeneratorPromptOptions,
)
from library.problems import run_command, warnings_in_order


@dataclass(frozen=True)
class Run:
    model: GeneratorModelOptions
    compute: GeneratorComputeOptions
    networks: GeneratorNetworkOptions
    control: GeneratorControlOptions
    inpainting: GeneratorInpaintingOptions
    prompts: GeneratorPromptOptions
    pictures: GenerationOptions
    console: ConsoleOptions


def main() -> None:
    draw_pictures(Run, __doc__)


def draw_pictures(run_type: type[Run], doc: str | None, *, family: str | None = None) -> None:
    """The whole command. family: the only one it takes, by its name in FAMILIES; None: any."""
    with warnings_in_order():
        reading = read(run_type, doc)
        from library.generation.command import check, draw, load, load_control_nets

        prompts = check(reading, family=family)
        run = reading.run
    model, networks = load(run.model, run.compute, run.networks)
    control = load_control_nets(model, run.control, run.compute)
    draw(model, prompts, run.pictures, clip_skip=run.model.clip_skip, control=control, networks=networks)


if __name__ == "__main__":
    run_command(main)
