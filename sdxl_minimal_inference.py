"""Draw one picture with an SDXL model, in as few options as can be:

    python sdxl_minimal_inference.py --ckpt_path sdxl.safetensors --prompt "a cat" --output_dir pictures \\
        --lora_weights "cat.safetensors;0.8" "style.safetensors"

sdxl_gen_img.py does the same with all options there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from library.options.drawing_tools import MinimalOptions
from library.options.generation import (
    GenerationOptions,
    GeneratorComputeOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
)
from library.options.parser import parse
from library.problems import Problems, run_command

STEPS, SCALE = 50, 7.5


@dataclass(frozen=True)
class Run:
    drawing: MinimalOptions


def main() -> None:
    options = parse(Run, __doc__).drawing
    from library.generation.command import load
    from library.generation.drawing import draw
    from library.generation.plan import plan_pictures
    from library.generation.request import PromptRequest
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
        network_mul=tuple(strength for _, strength in options.loras),
        network_merge=bool(options.loras),
    )
    model, _ = load(GeneratorModelOptions(ckpt=options.ckpt_path), GeneratorComputeOptions(), networks)
    pictures = plan_pictures([request], seed=options.seed)
    draw(model, pictures, GenerationOptions(outdir=options.output_dir, seed=options.seed), clip_skip=None)


if __name__ == "__main__":
    run_command(main)
