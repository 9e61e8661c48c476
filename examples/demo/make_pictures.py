"""Draw a dozen small captioned pictures of one figure, in several shapes of canvas, as a folder to train on.

python examples/demo/make_pictures.py outputs/demo/pictures
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": "#d1495b", "blue": "#30638e", "yellow": "#edae49", "green": "#2f9e6e"}
BACKGROUNDS = {"white": "#f6f4ef", "night": "#1d2233", "sand": "#e3d5b8"}
CANVASES = ((96, 96), (144, 96), (96, 144))
COUNT, REPEATS = 12, 4


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("outputs/demo/pictures")
    target = folder / f"{REPEATS}_shs figure"
    target.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    for number in range(COUNT):
        colour, background = rng.choice(list(COLOURS)), rng.choice(list(BACKGROUNDS))
        picture = draw_figure(CANVASES[number % len(CANVASES)], COLOURS[colour], BACKGROUNDS[background], rng)
        picture.save(target / f"{number:02d}.png")
        caption = f"shs figure, {colour}, {background} background"
        (target / f"{number:02d}.txt").write_text(caption + "\n", encoding="utf-8")
    print(f"drew {COUNT} pictures with captions in {target}")


def draw_figure(size: tuple[int, int], colour: str, background: str, rng: random.Random) -> Image.Image:
    """A shs: a star with a hole and two feet, somewhere near the middle. Drawn large, then made smaller."""
    scale = 4
    width, height = (side * scale for side in size)
    picture = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(picture)
    radius = min(width, height) * rng.uniform(0.3, 0.38)
    x, y = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.54)
    turn = rng.uniform(0, math.tau)
    points = [
        (x + r * math.cos(turn + k * math.pi / 6), y + r * math.sin(turn + k * math.pi / 6))
        for k in range(12)
        for r in [radius if k % 2 else radius * 0.62]
    ]
    for side in (-1, 1):
        foot = x + side * radius * 0.4
        draw.ellipse((foot - radius / 5, y + radius * 0.8, foot + radius / 5, y + radius * 1.2), fill=colour)
    draw.polygon(points, fill=colour)
    draw.ellipse((x - radius / 4, y - radius / 4, x + radius / 4, y + radius / 4), fill=background)
    return picture.resize(size, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
