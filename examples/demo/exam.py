"""Ask a model of the demo's world for pictures and judge them.

python examples/demo/exam.py --ckpt examples/demo/model.safetensors --count 64

Four subjects: single things, pairs of colour and shape that its training never showed, two things side by
side, and the new figure "shs", which it cannot know without a LoRA.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from anywhere, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from make_examples import example_scenes
from make_world import HELD_OUT, SQUARE, Scene, choose_scene, sentence
from shapes import COLOURS

from library.generation.request import PromptRequest
from library.options.fields import below, option, refuse
from library.options.generation import GeneratorComputeOptions, GeneratorModelOptions, GeneratorNetworkOptions
from library.options.parser import parse
from library.problems import UserError, run_command
from library.randomness import derive_seed, keyed_random

if TYPE_CHECKING:
    from PIL.Image import Image

    from library.models.base import Model
    from library.models.condition import Control

SUBJECTS = ("single", "held out", "pair", "shs")
STEPS, GUIDANCE = 30, 2.0
BATCH = 32


@dataclass(frozen=True)
class ExamOptions:
    """Exam."""

    count: int = option(64, "pictures of each subject", metavar="N")
    seed: int = option(1, "seed of prompts and pictures", metavar="N")
    faults: bool = option(False, "list what is wrong in the pictures that are")
    sheet: Path | None = option(None, "write all pictures as one, wrong ones framed in red", metavar="FILE")

    def __post_init__(self) -> None:
        refuse(*below(1, self, "count"))


@dataclass(frozen=True)
class Run:
    model: GeneratorModelOptions
    compute: GeneratorComputeOptions
    network: GeneratorNetworkOptions
    exam: ExamOptions


def main() -> None:
    from library.generation.command import load

    run = parse(Run, __doc__)
    model, _ = load(run.model, run.compute, run.network)
    rows = []
    for subject in SUBJECTS:
        scenes = exam_scenes(subject, run.exam.count, run.exam.seed)
        pictures = draw_scenes(model, scenes, seed=run.exam.seed, clip_skip=run.model.clip_skip)
        wrong = judge_pictures(pictures, scenes)
        print(f"{subject:9} {1 - len(wrong) / len(scenes):6.1%} of {len(scenes)}", flush=True)
        for number, faults in wrong.items() if run.exam.faults else ():
            print(f"    {sentence(scenes[number])}: {'; '.join(faults)}")
        rows += [_framed(picture, number in wrong) for number, picture in enumerate(pictures)]
    if run.exam.sheet:
        paste_grid(rows, columns=16).save(run.exam.sheet)


def exam_scenes(subject: str, count: int, seed: int = 1) -> list[Scene]:
    """Scenes of a subject as the world draws them, single things on square pictures. Colours and backgrounds
    of the new figure are none of those in its examples.
    """
    return [_scene(subject, keyed_random(seed, subject, number)) for number in range(count)]


def _scene(subject: str, rng: random.Random) -> Scene:
    things = 2 if subject == "pair" else 1
    while True:
        scene = choose_scene(rng)
        if len(scene.things) == things and (scene.size == SQUARE or things == 2):
            break
    if subject == "held out":
        pairs = [pair for pair in sorted(HELD_OUT) if pair[0] != scene.background]
        return replace(scene, things=(rng.choice(pairs),))
    if subject == "shs":
        seen = {(example.things[0][0], example.background) for example in example_scenes()}
        free = [c for c in COLOURS if c != scene.background and (c, scene.background) not in seen]
        return Scene(((rng.choice(free), "shs"),), scene.background)
    return scene


def draw_scenes(
    model: Model,
    scenes: Sequence[Scene],
    *,
    seed: int = 1,
    clip_skip: int | None = None,
    steps: int = STEPS,
    tell: Callable[[Scene], str] = sentence,
    hints: Sequence[Path] = (),
    control: Control | None = None,
) -> list[Image]:
    """A picture of each scene, drawn from its sentence; the noise of the n-th depends on seed and n.

    tell: gives the sentence of a scene.
    hints: a picture for each scene that networks of control are shown; none: from the sentence alone.
    control: a ControlNet that is shown them, if it is one.
    """
    from library.generation.generate import generate

    weight = next(model.denoiser.parameters())
    drawn: list[Image] = []
    for start in range(0, len(scenes), BATCH):
        requests = [
            _request(scene, tell(scene), derive_seed(seed, "exam", start + number) % 2**31, steps)
            for number, scene in enumerate(scenes[start : start + BATCH])
        ]
        if hints:
            requests = [r.with_hints((hints[start + number],)) for number, r in enumerate(requests)]
        pictures = generate(
            model,
            requests,
            device=weight.device,
            dtype=weight.dtype,
            clip_skip=clip_skip,
            control=control,
        )
        for picture in pictures:
            if picture is None:
                raise UserError.of("--ckpt", "draws pictures with values that are no numbers", "is it whole?")
            drawn.append(picture)
    return drawn


def _request(scene: Scene, prompt: str, seed: int, steps: int) -> PromptRequest:
    width, height = scene.size
    return PromptRequest(prompt, width=width, height=height, steps=steps, scale=GUIDANCE, seed=seed)


def judge_pictures(pictures: Sequence[Image], scenes: Sequence[Scene]) -> dict[int, list[str]]:
    """The number of each wrong picture -> what is wrong with it."""
    from judge import faults

    found = {n: faults(p, s) for n, (p, s) in enumerate(zip(pictures, scenes, strict=True))}
    return {number: wrong for number, wrong in found.items() if wrong}


def examine(model: Model, subject: str, count: int, *, seed: int = 1, clip_skip: int | None = None) -> float:
    """The share of right pictures of a subject, 0 to 1."""
    scenes = exam_scenes(subject, count, seed)
    wrong = judge_pictures(draw_scenes(model, scenes, seed=seed, clip_skip=clip_skip), scenes)
    return 1 - len(wrong) / count


def paste_grid(pictures: Sequence[Image], columns: int, margin: int = 4) -> Image:
    """Pictures in rows of equal cells, on white."""
    from PIL import Image

    width, height = (max(sides) for sides in zip(*(picture.size for picture in pictures), strict=True))
    rows = -(-len(pictures) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + margin) + margin, rows * (height + margin) + margin), "white"
    )
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet.paste(picture, (margin + column * (width + margin), margin + row * (height + margin)))
    return sheet


def _framed(picture: Image, is_wrong: bool) -> Image:
    from PIL import ImageOps

    return ImageOps.expand(picture, 2, "#ff0000" if is_wrong else "white")


if __name__ == "__main__":
    run_command(main)
