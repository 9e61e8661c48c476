"""What drawing costs beside the U-Net, together against one by one, and against diffusers' pipelines.

python benchmarks/drawing.py

Thin models of full depth at 64 pixels, float32, with guidance. Operators are exact on any machine: views and
allocations do not count. Seconds are ratios, measured in turns.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.measuring import in_turns, say, seconds  # noqa: E402

SIDE, STEPS, TOGETHER = 64, 8, 8
FAMILIES = ("sd1", "sdxl")


def main(folder: Path) -> None:
    from thin_models import thin_model

    for family in FAMILIES:
        model = thin_model(family)
        ours = _drawer(model)
        theirs, unet = _pipeline(model, family, folder / family)
        for name in _samplers(family):
            _say_operators(family, name, ours, model.denoiser, theirs, unet)
        _say_seconds(family, ours, theirs)


Draw = Callable[[str, int, int], object]  # sampler, steps, how many pictures


def _samplers(family: str) -> list[str]:
    from library.generation.samplers import SAMPLERS

    names = [name for name in SAMPLERS if not name.startswith("k_")]
    return names if family == "sd1" else ["ddim", "euler_a"]


def _drawer(model: Any) -> Draw:
    import torch

    from library.generation.generate import generate
    from library.generation.request import PromptRequest

    asked = PromptRequest("a cat on a mat", "blurry", width=SIDE, height=SIDE, scale=5.0, seed=3)

    def draw(sampler: str, steps: int, count: int) -> object:
        requests = [replace(asked, sampler=sampler, steps=steps, seed=seed) for seed in range(count)]
        return generate(model, requests, device=torch.device("cpu"), vae_batch=count)

    return draw


def _pipeline(model: Any, family: str, folder: Path) -> tuple[Draw, Any]:
    """diffusers' drawing of the same model, and its U-Net."""
    import diffusers
    import torch

    from library.generation.samplers import SAMPLERS
    from library.models.saving import Saving

    made = diffusers.StableDiffusionXLPipeline if family == "sdxl" else diffusers.StableDiffusionPipeline
    model.save(folder, Saving("diffusers_safetensors"))
    extra = {} if family == "sdxl" else {"safety_checker": None}
    pipeline = made.from_pretrained(folder, **extra)
    pipeline.set_progress_bar_config(disable=True)

    def draw(sampler: str, steps: int, count: int) -> object:
        kind = SAMPLERS[sampler]  # with our own LMS, since diffusers' needs scipy
        pipeline.scheduler = kind.find_class()(**kind.settings)
        return pipeline(
            ["a cat on a mat"] * count,
            negative_prompt=["blurry"] * count,
            width=SIDE,
            height=SIDE,
            num_inference_steps=steps,
            guidance_scale=5.0,
            generator=[torch.Generator().manual_seed(seed) for seed in range(count)],
        )

    return draw, pipeline.unet


def _say_operators(family: str, sampler: str, ours: Draw, unet: Any, theirs: Draw, their_unet: Any) -> None:
    inside, beside = _of_a_step(ours, unet, sampler)
    their_inside, their_beside = _of_a_step(theirs, their_unet, sampler)
    say(
        "drawing",
        model=family,
        sampler=sampler,
        unet_operators=inside,
        beside_it=beside,
        share_beside=beside / inside,
        their_unet_operators=their_inside,
        their_beside_it=their_beside,
    )


def _of_a_step(draw: Draw, unet: Any, sampler: str) -> tuple[float, float]:
    """Operators that one more step has, in the U-Net and beside it."""
    few, many = (_counted(draw, unet, sampler, steps) for steps in (STEPS, 2 * STEPS))
    inside, beside = ((many.of(part) - few.of(part)) / STEPS for part in ("unet", "forward"))
    return inside, beside


def _counted(draw: Draw, unet: Any, sampler: str, steps: int) -> Any:
    from operator_counts import CountOperators

    draw(sampler, steps, 1)  # what is made once is made before
    counting = CountOperators()
    forward = unet.forward
    unet.forward = counting.during("unet", forward)
    try:
        with counting:
            draw(sampler, steps, 1)
    finally:
        del unet.forward
    return counting.found


def _say_seconds(family: str, ours: Draw, theirs: Draw) -> None:
    def together() -> float:
        return seconds(lambda: ours("ddim", STEPS, TOGETHER))

    def one_by_one() -> float:
        return seconds(lambda: [ours("ddim", STEPS, 1) for _ in range(TOGETHER)])

    ratio, our, single = in_turns(together, one_by_one)
    say("drawing", model=family, figure="8 together against 8 x 1", ratio=ratio, seconds=our, single=single)
    for count in (1, TOGETHER):
        ratio, our, their = in_turns(
            lambda: seconds(lambda: ours("ddim", STEPS, count)),  # noqa: B023
            lambda: seconds(lambda: theirs("ddim", STEPS, count)),  # noqa: B023
        )
        say(
            "drawing",
            model=family,
            figure=f"{count} against diffusers",
            ratio=ratio,
            seconds=our,
            theirs=their,
        )


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
