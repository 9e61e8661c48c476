"""Draw a little world to learn: captioned pictures of coloured shapes, as a folder for fine_tune.py.

python examples/demo/make_world.py outputs/world

Every picture depends on the seed and its number alone. Some pairs of colour and shape are in no picture
(HELD_OUT), to see whether a model has understood what colours and shapes are. A caption has four lines, of
which training chooses one each time (--enable_wildcard): three times a sentence, once tags.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from anywhere, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent))

from shapes import COLOURS, PATTERNS, SHAPES, Pattern, Size, Thing, draw_scene

from library.files import whole_file
from library.options.fields import below, option, refuse
from library.options.parser import parse
from library.problems import run_command
from library.randomness import keyed_random

SQUARE, WIDE, TALL = (64, 64), (80, 48), (48, 80)
HELD_OUT = frozenset(
    {
        ("purple", "heart"),
        ("green", "star"),
        ("orange", "ring"),
        ("blue", "moon"),
        ("pink", "square"),
        ("red", "cross"),
        ("yellow", "arrow"),
        ("white", "circle"),
    }
)
PLACES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
# Radii in pixels; single things on pictures that are not square are a little smaller.
SIZES = {"small": (14.0, 16.0), "": (19.0, 22.0), "big": (25.0, 27.0)}
PLACED, ONE_OF_TWO = (14.0, 16.0), (15.5, 17.0)


@dataclass(frozen=True)
class WorldOptions:
    """World."""

    folder: Path = option(None, "folder for the pictures", positional=True, metavar="folder")
    count: int = option(12000, "pictures to draw", metavar="N")
    seed: int = option(1, "another world of the same kind", metavar="N")
    caption_files: bool = option(False, "write each caption into a .txt beside its picture too")

    def __post_init__(self) -> None:
        refuse(
            (self.folder is None, "<folder>", "is needed: where the pictures go"),
            *below(1, self, "count"),
        )


@dataclass(frozen=True)
class Run:
    world: WorldOptions


@dataclass(frozen=True)
class Scene:
    """What is in a picture, in words.

    things: (colour, shape) of each; the first of two is on the left.
    background: its colour.
    pattern: of the background; "": plain.
    place: of a single thing, one of PLACES; "": the middle.
    scale: "small", "" or "big".
    size: of the picture, in pixels.
    """

    things: tuple[tuple[str, str], ...]
    background: str
    pattern: Pattern = ""
    place: str = ""
    scale: str = ""
    size: Size = SQUARE


def main() -> None:
    options = parse(Run, __doc__).world
    options.folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for number in range(options.count):
        rng = keyed_random(options.seed, "world", number)
        scene = choose_scene(rng)
        draw(scene, rng).save(options.folder / f"{number:05d}.png")
        caption = "\n".join((*[sentence(scene)] * 3, tags(scene)))
        entries[f"{number:05d}"] = {"caption": caption}
        if options.caption_files:
            (options.folder / f"{number:05d}.txt").write_text(caption, encoding="utf-8")
    with whole_file(options.folder / "metadata.json") as path:
        path.write_text(json.dumps(entries, indent=0), encoding="utf-8")
    print(f"drew {options.count} pictures in {options.folder}; their captions are in metadata.json")


def choose_scene(rng: random.Random) -> Scene:
    """A random scene of the world, without held-out pairs."""
    background = rng.choice(list(COLOURS))
    pattern = rng.choice(PATTERNS) if rng.random() < 0.12 else ""
    if rng.random() < 0.5:
        things = (choose_thing(rng, background), choose_thing(rng, background))
        return Scene(things, background, pattern, size=WIDE)
    kind = rng.random()
    place = rng.choice(list(PLACES)) if kind < 0.2 else ""
    scale = rng.choice(("small", "big")) if kind > 0.8 else ""
    size = SQUARE if rng.random() < 0.75 else rng.choice((WIDE, TALL))
    return Scene((choose_thing(rng, background),), background, pattern, place, scale, size)


def choose_thing(rng: random.Random, background: str) -> tuple[str, str]:
    """A random pair of shape and colour that is not held out and can be seen on the background."""
    while True:
        thing = rng.choice(list(COLOURS)), rng.choice(list(SHAPES))
        if thing[0] != background and thing not in HELD_OUT:
            return thing


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """A picture of a scene; sizes and places vary a little with rng."""
    return draw_scene(scene.size, scene.background, scene.pattern, place_things(scene, rng))


def place_things(scene: Scene, rng: random.Random) -> tuple[Thing, ...]:
    """The things of a scene with their exact places and sizes."""
    shrink = 1.0 if scene.size == SQUARE or len(scene.things) == 2 else 0.85
    if len(scene.things) == 2:
        centres = [(-0.25, 0.0), (0.25, 0.0)]
        sizes = ONE_OF_TWO
    else:
        across, down = PLACES.get(scene.place, (0, 0))
        centres = [(0.25 * across, 0.25 * down)]
        sizes = PLACED if scene.place else SIZES[scene.scale]
    return tuple(
        Thing(
            colour,
            shape,
            0.5 + x + rng.uniform(-1.0, 1.0) / scene.size[0],
            0.5 + y + rng.uniform(-1.0, 1.0) / scene.size[1],
            rng.uniform(*sizes) * shrink,
        )
        for (colour, shape), (x, y) in zip(scene.things, centres, strict=True)
    )


def sentence(scene: Scene) -> str:
    """A scene as a caption: `a big red star on a striped blue background`."""
    ground = f"on {_article(' '.join(filter(None, (scene.pattern, scene.background))))} background"
    if len(scene.things) == 2:
        left, right = (_article(" ".join(thing)) for thing in scene.things)
        return f"{left} on the left and {right} on the right {ground}"
    ((colour, shape),) = scene.things
    what = _article(" ".join(filter(None, (scene.scale, colour, shape))))
    return f"{what}{_WHERE[scene.place]} {ground}"


_WHERE = {
    "": "",
    "left": " on the left",
    "right": " on the right",
    "top": " at the top",
    "bottom": " at the bottom",
}


def tags(scene: Scene) -> str:
    """A scene as tags: `2 objects, red star left, green circle right, striped blue background`."""
    ground = " ".join(filter(None, (scene.pattern, scene.background, "background")))
    if len(scene.things) == 2:
        left, right = (" ".join(thing) for thing in scene.things)
        return f"2 objects, {left} left, {right} right, {ground}"
    words = (scene.scale, *scene.things[0], scene.place)
    return f"1 object, {' '.join(filter(None, words))}, {ground}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


if __name__ == "__main__":
    run_command(main)
