"""How the demo's little world looks: colours, shapes and patterns, and how they are drawn. make_world.py says
which scenes there are.

Shapes are outlines in a unit disc, x to the right and y down. Pictures are drawn large and then reduced, so
that edges are smooth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageColor, ImageDraw

Size = tuple[int, int]
Point = tuple[float, float]
Pattern = Literal["", "striped", "dotted", "checked"]

COLOURS = {
    "red": "#d7263d",
    "orange": "#f58a1f",
    "yellow": "#f9dc4a",
    "green": "#2e9e4f",
    "cyan": "#4fd3e0",
    "blue": "#2456c7",
    "purple": "#7d3fb8",
    "pink": "#f79ac0",
    "brown": "#7d4a26",
    "black": "#1d1d24",
    "gray": "#959aa3",
    "white": "#fbfaf5",
}
PATTERNS: tuple[Pattern, ...] = ("", "striped", "dotted", "checked")
_LARGER = 4  # how much larger than the picture it is drawn
_CELL = 16  # pixels, the period of a pattern


@dataclass(frozen=True)
class Thing:
    """One object in a picture.

    colour, shape: their names.
    x, y: its centre, as shares of the picture's width and height.
    radius: of the disc that it fills, in pixels.
    """

    colour: str
    shape: str
    x: float
    y: float
    radius: float


def draw_scene(size: Size, background: str, pattern: Pattern, things: tuple[Thing, ...]) -> Image.Image:
    """An RGB picture of things on a background, `size` pixels large."""
    picture = draw_background(size, COLOURS[background], pattern)
    for thing in things:
        colour = Image.new("RGB", size, COLOURS[thing.colour])
        centre = (thing.x * size[0], thing.y * size[1])
        picture.paste(colour, mask=draw_mask(size, thing.shape, centre, thing.radius))
    return picture


def draw_background(size: Size, colour: str, pattern: Pattern) -> Image.Image:
    """A plain colour, or a pattern of the colour and its tone."""
    large = (size[0] * _LARGER, size[1] * _LARGER)
    picture = Image.new("RGB", large, colour)
    pen, tone = ImageDraw.Draw(picture), tone_of(colour)
    cell = _CELL * _LARGER
    for x in range(-large[1], large[0], cell) if pattern == "striped" else ():
        pen.polygon(
            [(x, large[1]), (x + cell // 2, large[1]), (x + cell // 2 + large[1], 0), (x + large[1], 0)], tone
        )
    for x in range(0, large[0], cell):
        for y in range(0, large[1], cell):
            if pattern == "dotted":
                pen.ellipse((x + cell * 0.28, y + cell * 0.28, x + cell * 0.72, y + cell * 0.72), tone)
            if pattern == "checked":
                pen.rectangle((x, y, x + cell // 2 - 1, y + cell // 2 - 1), tone)
                pen.rectangle((x + cell // 2, y + cell // 2, x + cell - 1, y + cell - 1), tone)
    return picture.resize(size, Image.Resampling.BOX)


def tone_of(colour: str) -> tuple[int, ...]:
    """A slightly lighter (of light colours, darker) shade, which people still call by the same name."""
    levels = ImageColor.getrgb(colour)
    towards = 0 if sum(levels) > 480 else 255
    return tuple(round(level + (towards - level) * 0.15) for level in levels)


def draw_mask(size: Size, shape: str, centre: Point, radius: float) -> Image.Image:
    """A grey picture, white where the shape is and black elsewhere."""
    mask = Image.new("L", (size[0] * _LARGER, size[1] * _LARGER), 0)
    pen = ImageDraw.Draw(mask)
    for outline, level in SHAPES_AND_SHS[shape]:
        points = [
            ((centre[0] + x * radius) * _LARGER, (centre[1] + y * radius) * _LARGER) for x, y in outline
        ]
        pen.polygon(points, fill=level)
    return mask.resize(size, Image.Resampling.BOX)


def _disc(x: float, y: float, radius: float, corners: int = 48) -> list[Point]:
    angles = (math.tau * k / corners for k in range(corners))
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def _star(corners: int, inner: float) -> list[Point]:
    angles = [math.pi * (k / corners - 0.5) for k in range(2 * corners)]
    radii = [inner if k % 2 else 1.05 for k in range(2 * corners)]
    return [(r * math.cos(a), r * math.sin(a) + 0.06) for r, a in zip(radii, angles, strict=True)]


def _heart() -> list[Point]:
    """The usual heart curve, 16 sin^3 and four cosines, scaled into the disc."""
    angles = (math.tau * k / 60 for k in range(60))
    return [
        (
            16 * math.sin(a) ** 3 / 17,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) + 2.5) / 17,
        )
        for a in angles
    ]


# Name -> outlines, each drawn over those before it with its level: 255 adds to the shape, 0 cuts out of it.
SHAPES: dict[str, list[tuple[list[Point], int]]] = {
    "circle": [(_disc(0, 0, 0.92), 255)],
    "square": [([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], 255)],
    "triangle": [([(0, -0.9), (0.98, 0.78), (-0.98, 0.78)], 255)],
    "diamond": [([(0, -1.1), (0.72, 0), (0, 1.1), (-0.72, 0)], 255)],
    "star": [(_star(5, 0.4), 255)],
    "heart": [(_heart(), 255)],
    "cross": [
        ([(-0.32, -0.96), (0.32, -0.96), (0.32, 0.96), (-0.32, 0.96)], 255),
        ([(-0.96, -0.32), (0.96, -0.32), (0.96, 0.32), (-0.96, 0.32)], 255),
    ],
    "ring": [(_disc(0, 0, 0.98), 255), (_disc(0, 0, 0.54), 0)],
    "moon": [(_disc(0, 0, 0.98), 255), (_disc(0.5, -0.16, 0.8), 0)],
    "arrow": [
        (
            [(0.05, -0.95), (1.05, 0), (0.05, 0.95), (0.05, 0.4), (-0.95, 0.4), (-0.95, -0.4), (0.05, -0.4)],
            255,
        )
    ],
    "hourglass": [
        ([(-0.78, -0.96), (0.78, -0.96), (0.16, 0), (0.78, 0.96), (-0.78, 0.96), (-0.16, 0)], 255),
    ],
    "mushroom": [
        (_disc(0, 0, 1.0), 255),
        ([(-1.1, 0.12), (1.1, 0.12), (1.1, 1.1), (-1.1, 1.1)], 0),
        ([(-0.34, 0.1), (0.34, 0.1), (0.42, 0.96), (-0.42, 0.96)], 255),
    ],
}

# The figure that the demo teaches: a round body with two horns, two feet, and two eyes. No world has it.
SHS: list[tuple[list[Point], int]] = [
    (_disc(0, 0.05, 0.66), 255),
    ([(-0.62, -0.1), (-0.72, -1.02), (-0.08, -0.5)], 255),
    ([(0.62, -0.1), (0.72, -1.02), (0.08, -0.5)], 255),
    ([(-0.62, 0.3), (-0.14, 0.3), (-0.14, 1.0), (-0.62, 1.0)], 255),
    ([(0.62, 0.3), (0.14, 0.3), (0.14, 1.0), (0.62, 1.0)], 255),
    (_disc(-0.26, -0.02, 0.17), 0),
    (_disc(0.26, -0.02, 0.17), 0),
]
SHAPES_AND_SHS = SHAPES | {"shs": SHS}
