"""Draw one picture with an SDXL model, in as few options as can be:

    python sdxl_minimal_inference.py --ckpt_path sdxl.safetensors --prompt "a cat" --output_dir pictures \\
        --lora_weights "cat.safetensors;0.8" "style.safetensors"

sdxl_gen_img.py does the same with all options there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from library.options.drawing_files import PictureFileOptions
from library.options.drawing_tools import MinimalOptions
from library.options.generation import (
    GenerationOptions,
    GeneratorComputeOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
)
from library.options.multipliers import Multiplier
from library.options.parser import parse
from library.problems import Problems, run_command

if TYPE_CHECKING:
    from library.generation.request import PromptRequest

STEPS, SCALE = 50, 7.5


@dataclass(frozen=True)
class Run:
    drawing: MinimalOptions


def main() -> None:
    options = parse(Run, __doc__).drawing
    from library.generation.command import load
    from library.generation.drawing import draw, names_of
    from library.generation.plan import plan_pictures
    from library.generation.prompt_options import generator_syntax
    from library.generation.prompts import parse_prompt
    from library.generation.request import PromptRequest
    from library.generation.sources import converse
    from library.models import FAMILIES, check_source
    from library.network.loading import check_network_file

    problems = Problems()
    problems.attempt(check_source, options.ckpt_path, family="sdxl")
    for path, _ in options.loras:
        problems.attempt(check_network_file, path)
    problems.raise_if_any()
    side = FAMILIES["sdxl"].side
    request = PromptRequest(
        options.prompt,
        negative=options.negative_prompt,
        width=side,
        height=side,
        steps=STEPS,
        scale=SCALE,
        sampler="euler",
    )
    networks = GeneratorNetworkOptions(
        network_weights=tuple(path for path, _ in options.loras),
        network_mul=tuple(Multiplier(strength) for _, strength in options.loras),
        network_merge=bool(options.loras),
    )
    model, _ = load(GeneratorModelOptions(ckpt=options.ckpt_path), GeneratorComputeOptions(), networks)
    files = GenerationOptions(outdir=options.output_dir, seed=options.seed)
    names = names_of(PictureFileOptions())

    def draw_and_tell(pictures: Sequence[PromptRequest]) -> None:
        draw(model, pictures, files, names=names, clip_skip=None).end()

    def read(line: str, where: str, seed: int) -> list[PromptRequest]:
        return plan_pictures([parse_prompt(line, syntax, where=where, defaults=request)], seed=seed)

    if options.interactive:
        syntax = generator_syntax(FAMILIES["sdxl"].latent_space.pixel_multiple)
        converse(read, draw_and_tell, seed=options.seed)
    else:
        draw_and_tell(plan_pictures([request], seed=options.seed))


if __name__ == "__main__":
    run_command(main)
