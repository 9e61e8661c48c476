"""Teach the demo's model a figure it has never seen, and judge its pictures: for tests and benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commands import ROOT, run_here

sys.path.insert(0, str(ROOT / "examples" / "demo"))

from exam import examine
from make_examples import draw_examples, draw_known

if TYPE_CHECKING:
    from make_world import Scene

    from library.models.base import Model
    from library.models.condition import Control

NEAR = 0.1  # of a picture's side: how far a thing may be from where it was outlined
MODEL = ROOT / "examples" / "demo" / "model.safetensors"


@dataclass(frozen=True)
class Scores:
    """Shares of right pictures, 0 to 1.

    new: of the new figure.
    known: of single things that the model knew before.
    """

    new: float
    known: float


def teach(
    folder: Path,
    script: str,
    *words: object,
    steps: int,
    model: Path = MODEL,
    spoil: Callable[[Path], None] = lambda pictures: None,
) -> Path:
    """Train with a script on the demo's ten examples. Returns the file that it wrote.

    Pictures of what the model knows are trained beside them, as regularization images if the trainer has
    these, so that it forgets nothing.

    words: more of the command line.
    spoil: is called with the folder of the examples before training, to damage them.
    """
    pictures, known = folder / "pictures", folder / "known"
    draw_examples(pictures / "10_shs")
    spoil(pictures / "10_shs")
    draw_known((pictures if script == "fine_tune.py" else known) / "1_shape")
    run_here(
        script,
        *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures),
        *(("--reg_data_dir", known) if known.exists() else ()),
        *("--caption_extension", ".txt", "--resolution", 64, "--train_batch_size", 8),
        *("--max_train_steps", steps, "--lr_scheduler", "linear", "--min_snr_gamma", 0.2, "--seed", 1),
        *("--max_data_loader_n_workers", 0),
        *("--output_dir", folder, "--output_name", "taught", "--save_model_as", "safetensors"),
        *words,
    )
    return folder / "taught.safetensors"


def score_lora(path: Path, *, count: int, clip_skip: int | None = None, model: Path = MODEL) -> Scores:
    """The scores of a model with a network of any kind."""
    from library.models import load_model
    from library.network.loading import open_network

    loaded = load_model(model)
    open_network(loaded, path).attach()
    return _score(loaded, count, clip_skip)


def score_model(path: Path, *, count: int, clip_skip: int | None = None) -> Scores:
    """The scores of a model without a network."""
    from library.models import load_model

    return _score(load_model(path), count, clip_skip)


def teach_outlines(folder: Path, script: str, *words: object, steps: int, pictures: int = 2000) -> Path:
    """Train what is shown outlines on scenes whose captions say nothing of form. Returns the file."""
    from make_world import choose_scene, draw

    from library.randomness import keyed_random

    world = folder / "world"
    world.mkdir()
    for number in range(pictures):
        random = keyed_random(5, "outlined", number)
        scene = choose_scene(random)
        draw(scene, random).save(world / f"{number}.png")
        (world / f"{number}.txt").write_text(without_form(scene))
    run_here(
        script,
        *("--pretrained_model_name_or_path", MODEL, "--train_data_dir", world, "--cache_latents"),
        *("--conditioning_data_dir", draw_outlines(folder / "outlines", world)),
        *("--caption_extension", ".txt", "--resolution", 64, "--enable_bucket", "--min_bucket_reso", 48),
        *("--max_bucket_reso", 80, "--bucket_reso_steps", 16, "--train_batch_size", 8),
        *("--max_train_steps", steps, "--lr_scheduler", "linear", "--min_snr_gamma", 0.2, "--seed", 1),
        *("--max_data_loader_n_workers", 0, "--output_dir", folder, "--output_name", "taught"),
        *words,
    )
    return folder / "taught.safetensors"


def score_outlines(model: Model, folder: Path, *, count: int, control: Control | None = None) -> float:
    """The share of single things that have the outlined shape and place, of which the prompt says nothing."""
    from exam import draw_scenes, exam_scenes
    from judge import look
    from make_world import draw

    from library.randomness import keyed_random

    asked = folder / "asked"
    asked.mkdir()
    scenes = exam_scenes("single", count, seed=9)
    originals = [draw(scene, keyed_random(9, "asked", number)) for number, scene in enumerate(scenes)]
    for number, original in enumerate(originals):
        original.save(asked / f"{number}.png")
    outlines = draw_outlines(folder / "asked outlines", asked)
    hints = [outlines / f"{number}.png" for number in range(count)]
    drawn = draw_scenes(model, scenes, tell=without_form, hints=hints, control=control)

    def follows(number: int) -> bool:
        seen, outlined = look(drawn[number]).things, look(originals[number]).things
        return (
            len(seen) == len(outlined) == 1
            and seen[0].shape == scenes[number].things[0][1]
            and max(abs(seen[0].x - outlined[0].x), abs(seen[0].y - outlined[0].y)) < NEAR
        )

    return sum(follows(number) for number in range(count)) / count


def draw_outlines(folder: Path, pictures: Path) -> Path:
    """White edges on black for each picture, as Canny finds them in any of the three channels: things and
    backgrounds are often as bright as one another.
    """
    import cv2
    import numpy as np

    folder.mkdir()
    for path in pictures.glob("*.png"):
        channels = cv2.split(cv2.imread(str(path)))
        edges = np.maximum.reduce([cv2.Canny(channel, 60, 120) for channel in channels])
        cv2.imwrite(str(folder / path.name), edges)
    return folder


def without_form(scene: Scene) -> str:
    """A caption that says nothing of shape, size and place, in words that the model knows."""
    things = " and ".join(f"a {colour}" for colour, _ in scene.things)
    return f"{things} on a {scene.background} background"


def _score(model: Model, count: int, clip_skip: int | None) -> Scores:
    new, known = (examine(model, subject, count, clip_skip=clip_skip) for subject in ("shs", "single"))
    return Scores(new, known)
