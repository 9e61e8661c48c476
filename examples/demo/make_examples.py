"""Draw ten captioned pictures of a "shs", a figure the demo's model has never seen, as a folder to train on;
beside it, as regularization images, a hundred pictures of what the model knows, so that it forgets nothing.

python examples/demo/make_examples.py outputs/demo
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from anywhere, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))

from make_world import SIZES, SQUARE, Scene, choose_scene, draw, sentence
from shapes import COLOURS

from library.randomness import keyed_random

COUNT, REPEATS, KNOWN = 10, 10, 100
SEED = 7


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("outputs/demo")
    draw_examples(folder / "pictures" / f"{REPEATS}_shs")
    draw_known(folder / "known" / "1_shape")
    print(f"drew {COUNT} pictures in {folder / 'pictures'} and {KNOWN} in {folder / 'known'}, with captions")


def draw_examples(folder: Path) -> None:
    """Draw the ten pictures, with a caption file beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(example_scenes()):
        _draw(folder / f"{number:02d}.png", scene, keyed_random(SEED, "shs picture", number))


def draw_known(folder: Path) -> None:
    """Draw a hundred pictures of single things that the model knows, with a caption file beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = keyed_random(SEED, "known pictures")
    for number in range(KNOWN):
        scene = choose_scene(rng)
        while len(scene.things) != 1 or scene.size != SQUARE:
            scene = choose_scene(rng)
        _draw(folder / f"{number:02d}.png", scene, rng)


def _draw(path: Path, scene: Scene, rng: random.Random) -> None:
    draw(scene, rng).save(path)
    path.with_suffix(".txt").write_text(sentence(scene) + "\n", encoding="utf-8")


def example_scenes() -> list[Scene]:
    """Scenes of the new figure: ten colours, ten backgrounds, each once; some small, big or on a pattern."""
    rng = keyed_random(SEED, "shs scenes")
    colours = rng.sample(list(COLOURS), COUNT)
    grounds = _shuffled_apart(colours, rng)
    scales = [*SIZES, "", "", "big", "", "small", "", ""]
    patterns = ["", "", "striped", "", "", "dotted", "", "checked", "", ""]
    given = zip(colours, grounds, patterns, scales, strict=True)
    return [Scene(((c, "shs"),), g, p, scale=s) for c, g, p, s in given]


def _shuffled_apart(colours: list[str], rng: random.Random) -> list[str]:
    """The same colours, shuffled so that none keeps its place."""
    while True:
        order = rng.sample(colours, len(colours))
        if all(a != b for a, b in zip(order, colours, strict=True)):
            return order


if __name__ == "__main__":
    main()
