"""Draw a picture with a model and a network.

python networks/lora_diffusers.py --model_id model.safetensors --lora_weights my_lora.safetensors \
    --prompt "a cat"
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.generation import (
    GenerationOptions,
    GeneratorComputeOptions,
    GeneratorModelOptions,
    GeneratorNetworkOptions,
)
from library.options.network_tools import NetworkInDiffusersOptions
from library.options.parser import parse
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    drawing: NetworkInDiffusersOptions


def main() -> None:
    options = parse(Run, __doc__).drawing
    from library.generation.command import load
    from library.generation.drawing import draw
    from library.generation.plan import plan_pictures
    from library.generation.request import PromptRequest
    from library.models import FAMILIES, check_source, detect_family
    from library.network.loading import check_network_file

    problems = Problems()
    family = "sdxl" if options.sdxl else None
    source = problems.attempt(check_source, options.model_id, family=family)
    problems.attempt(check_network_file, options.lora_weights)
    problems.raise_if_any()
    assert source is not None
    side = FAMILIES[detect_family(source)].side
    request = PromptRequest(options.prompt, negative=options.negative_prompt, width=side, height=side)
    networks = GeneratorNetworkOptions(network_weights=(options.lora_weights,))
    model, _ = load(GeneratorModelOptions(ckpt=options.model_id), GeneratorComputeOptions(), networks)
    pictures = GenerationOptions(outdir=options.outdir, seed=options.seed)
    draw(model, plan_pictures([request], seed=options.seed), pictures, clip_skip=None).end()


if __name__ == "__main__":
    run_command(main)
