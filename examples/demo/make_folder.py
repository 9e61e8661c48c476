"""Draw a folder of pictures as people have them, for the notebook: a "shs", a figure the demo's model has
never seen, and as many things that it knows, so that it forgets nothing. What a picture shows is in its name
alone; a copy and a broken file are among them.

python examples/demo/make_folder.py outputs/my_pictures
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from anywhere, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))

from make_examples import example_scenes
from make_world import SQUARE, Scene, choose_scene, draw, sentence

from library.problems import UserError, run_command
from library.randomness import keyed_random

EACH = 3  # drawings of each of the ten scenes with a shs; as many pictures of known things as all of them
SEED = 7


def main() -> None:
    if len(sys.argv) != 2:
        raise UserError.of("make_folder.py", "needs a folder", "name one for the pictures")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [scene for scene in example_scenes() for _ in range(EACH)]
    scenes += [known_scene(number) for number in range(len(scenes))]
    paths = [folder / f"{sentence(scene).replace(' ', '-')}_{n:02d}.png" for n, scene in enumerate(scenes)]
    for number, (path, scene) in enumerate(zip(paths, scenes, strict=True)):
        draw(scene, keyed_random(SEED, "picture in a folder", number)).save(path)
    shutil.copyfile(paths[0], folder / "the-same-again.png")
    (folder / "broken.jpg").write_bytes(paths[0].read_bytes()[:400])
    print(f"drew {len(paths)} pictures in {folder}, and put a copy and a broken file among them")


def known_scene(number: int) -> Scene:
    """A scene with a single thing that the model knows, on a square picture."""
    rng = keyed_random(SEED, "known picture in a folder", number)
    while True:
        scene = choose_scene(rng)
        if len(scene.things) == 1 and scene.size == SQUARE:
            return scene


if __name__ == "__main__":
    run_command(main)
