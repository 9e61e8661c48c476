"""Teach the demo's model a figure it has never seen, and judge what it draws: for tests and benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands import ROOT, run_here

sys.path.insert(0, str(ROOT / "examples" / "demo"))

from exam import examine
from make_examples import draw_examples
from make_world import choose_scene, draw, sentence

from library.randomness import keyed_random

MODEL = ROOT / "examples" / "demo" / "model.safetensors"


@dataclass(frozen=True)
class Scores:
    """Shares of right pictures, 0 to 1: of the new figure, and of single things the model knew before."""

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
    """Train with a script on the ten example pictures in `folder`/pictures; the path of what it wrote.

    spoil: gets the folder of the examples before training, to make them wrong.
    """
    examples = folder / "pictures" / "10_shs"
    draw_examples(examples)
    spoil(examples)
    run_here(
        script,
        *("--pretrained_model_name_or_path", model, "--train_data_dir", folder / "pictures"),
        *("--caption_extension", ".txt", "--resolution", 64, "--train_batch_size", 8),
        *("--max_train_steps", steps, "--seed", 1, "--max_data_loader_n_workers", 0),
        *("--output_dir", folder, "--output_name", "taught", "--save_model_as", "safetensors"),
        *words,
    )
    return folder / "taught.safetensors"


def draw_known(folder: Path, count: int) -> None:
    """Captioned pictures of the world, with single things: what a model should not forget."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while len(list(folder.glob("*.png"))) < count:
        rng = keyed_random(3, "known", number)
        scene = choose_scene(rng)
        if len(scene.things) == 1:
            draw(scene, rng).save(folder / f"{number:03d}.png")
            (folder / f"{number:03d}.txt").write_text(sentence(scene) + "\n", encoding="utf-8")
        number += 1


def score_lora(path: Path, *, count: int, clip_skip: int | None = None, model: Path = MODEL) -> Scores:
    """What a model draws with a LoRA."""
    from library.models import load_model
    from networks import lora

    loaded = load_model(model)
    lora.from_file(loaded, path).attach()
    return _score(loaded, count, clip_skip)


def score_model(path: Path, *, count: int, clip_skip: int | None = None) -> Scores:
    """What a model draws by itself."""
    from library.models import load_model

    return _score(load_model(path), count, clip_skip)


def _score(model: object, count: int, clip_skip: int | None) -> Scores:
    new, known = (examine(model, subject, count, clip_skip=clip_skip) for subject in ("shs", "single"))
    return Scores(new, known)
