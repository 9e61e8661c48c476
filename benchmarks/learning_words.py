"""How well new words are learned: rows of `learning.py`.

"new" is the share of right pictures of scenes told with the new word, "known" of scenes without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from commands import run_here
from learning import MODEL, Scores, score_lora, teach

if TYPE_CHECKING:
    from make_world import Scene

    from library.models.base import Model

COUNT, STEPS, TAUGHT = 64, 250, 10
CALLED = "<new>"
# A colour that lies between two that the model knows, and far from all of them (CIELAB 38).
MIXED, HALVES = "olive", ("orange", "green")
PIVOTAL_STEPS = 140
LORA = (
    *("--network_module", "networks.lora", "--network_dim", 16, "--network_alpha", 16),
    *("--network_args", "conv_dim=8", "conv_alpha=8", "--learning_rate", 1e-3, "--cache_latents"),
)


def known_colour(folder: Path, *, script: str = "train_textual_inversion.py") -> Scores:
    """A colour that the model knows, under a new word, from ten pictures."""
    from exam import exam_scenes

    scenes = [scene for scene in exam_scenes("single", 2000, seed=7) if scene.things[0][0] == "purple"]
    return _score(folder, scenes, "purple", 1, script)


def mixed_colour(folder: Path, vectors: int) -> Scores:
    """A colour that the model has never seen."""
    from exam import exam_scenes

    with _one_colour_more():
        scenes = [
            replace(scene, things=((MIXED, scene.things[0][1]),))
            for scene in exam_scenes("single", 500, seed=7)
            if scene.background not in HALVES
        ]
        return _score(folder, scenes, MIXED, vectors)


def figure(folder: Path, vectors: int) -> Scores:
    """A figure that the model has never seen."""
    from exam import exam_scenes
    from make_examples import example_scenes

    scenes = [*example_scenes(), *exam_scenes("shs", COUNT)]
    return _score(folder, scenes, "shs", vectors)


def figure_by_lora(folder: Path, steps: int) -> Scores:
    """The figure by a LoRA after few steps."""
    return score_lora(teach(folder, "train_network.py", *LORA, steps=steps), count=COUNT)


def pivotal(folder: Path) -> Scores:
    """The same after half as many with its word trained beside the network."""
    from exam import examine

    from library.models import load_model
    from library.models.embeddings import find_embeddings, rows_for
    from library.network.loading import open_network

    words = ("--token_string", "shs", "--init_word", "star", "--embedding_lr", 1e-2)
    path = teach(folder, "train_network.py", *LORA, *words, steps=PIVOTAL_STEPS // 2)
    model = load_model(MODEL)
    open_network(model, path).attach()
    for found in find_embeddings(path):
        model.vocabulary.add(found.word, found.vectors, rows_for(model, found))
    return Scores(*(examine(model, subject, COUNT) for subject in ("shs", "single")))


def _score(
    folder: Path,
    scenes: Sequence[Scene],
    old: str,
    vectors: int,
    script: str = "train_textual_inversion.py",
) -> Scores:
    """Teaches a word in the place of another by the first scenes, and judges pictures of the next ones."""
    from exam import draw_scenes, examine, judge_pictures
    from make_world import sentence

    from library.models import load_model

    def tell(scene: Scene) -> str:
        return sentence(scene).replace(old, CALLED)

    path = _teach(folder, scenes[:TAUGHT], tell, vectors, script)
    model = load_model(MODEL)
    _add(model, path, by_layer="XTI" in script)
    asked = scenes[TAUGHT : TAUGHT + COUNT]
    wrong = judge_pictures(draw_scenes(model, asked, tell=tell), asked)
    return Scores(1 - len(wrong) / len(asked), examine(model, "single", COUNT))


def _teach(
    folder: Path, scenes: Sequence[Scene], tell: Callable[[Scene], str], vectors: int, script: str
) -> Path:
    from make_world import draw

    from library.randomness import keyed_random

    pictures = folder / "pictures" / "1_thing"
    pictures.mkdir(parents=True)
    for number, scene in enumerate(scenes):
        draw(scene, keyed_random(7, "word", number)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(tell(scene))
    run_here(
        script,
        *("--pretrained_model_name_or_path", MODEL, "--train_data_dir", folder / "pictures"),
        *("--caption_extension", ".txt", "--resolution", 64, "--train_batch_size", 8, "--seed", 1),
        *("--token_string", CALLED, "--init_word", "a", "--num_vectors_per_token", vectors),
        *("--learning_rate", 1e-2, "--max_train_steps", STEPS, "--lr_scheduler", "linear"),
        *("--max_data_loader_n_workers", 0, "--min_snr_gamma", 0.2, "--cache_latents"),
        *("--output_dir", folder, "--output_name", "new", "--save_model_as", "safetensors"),
    )
    return folder / "new.safetensors"


def _add(model: Model, path: Path, *, by_layer: bool) -> None:
    """The word that a file teaches, as prompts name it."""
    from library.models.embeddings import find_embeddings, rows_for
    from library.models.layer_embeddings import add_layer_embeddings

    named = path.with_name(f"{CALLED}.safetensors")
    path.rename(named)
    if by_layer:
        add_layer_embeddings(model, [named])
        return
    (found,) = find_embeddings(named)
    model.vocabulary.add(CALLED, found.vectors, rows_for(model, found))


@contextmanager
def _one_colour_more() -> Iterator[None]:
    """Context manager: the world and its judge know the mixed colour."""
    import judge
    import numpy as np
    from PIL import ImageColor
    from shapes import COLOURS

    levels = np.mean([ImageColor.getrgb(COLOURS[half]) for half in HALVES], axis=0)
    COLOURS[MIXED] = "#" + "".join(f"{round(level):02x}" for level in levels)
    judge._palette.cache_clear()
    try:
        yield
    finally:
        del COLOURS[MIXED]
        judge._palette.cache_clear()
