"""The judge of the demo: without a network it says how many things a picture shows, and their colours,
shapes and places.

    look(picture)                 what is in the picture
    faults(picture, scene)        how it differs from what a prompt asked for; empty if the picture is right

A colour's name is that of the nearest colour in CIELAB. To find a thing's shape, its outline, moved to its
centre and scaled to a fixed area, is compared with outlines drawn by the world itself. tests/test_judge.py
measures how often it errs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageColor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "demo"))

from make_world import PLACES, SQUARE, Scene
from shapes import COLOURS, SHAPES_AND_SHS, draw_mask, tone_of

SEEN = 14.0  # CIELAB distance from the background; pixels that are further away may belong to a thing
LEAST_AREA = 24  # pixels; smaller specks are not counted as things
LEAST_LIKENESS = 0.72  # intersection over union with the best outline; below it, a thing has no known shape
_GRID, _UNIT = 40, 18.0  # side of the grid that outlines are compared on, and root of their area there
_RADII = (8.0, 11.0, 15.0, 20.0, 26.0)


@dataclass(frozen=True)
class Found:
    """One thing.

    colour: the name of its colour.
    shape: "" if it resembles none.
    x, y: its centre, as shares of the picture's width and height.
    area: in pixels.
    likeness: intersection over union with the best outline, 0 to 1.
    """

    colour: str
    shape: str
    x: float
    y: float
    area: float
    likeness: float


@dataclass(frozen=True)
class Seen:
    """What is in a picture.

    background: the name of its colour.
    things: from left to right.
    """

    background: str
    things: tuple[Found, ...]


def look(picture: Image.Image) -> Seen:
    """What is in a picture with sides of about 64 pixels."""
    lab = _to_lab(np.asarray(picture.convert("RGB")))
    background = _background(lab)
    distance = _from_line(lab, background)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (distance > SEEN).astype(np.uint8), connectivity=8
    )
    found = [
        _examine(lab, labels == n, background)
        for n in range(1, count)
        if stats[n, cv2.CC_STAT_AREA] >= LEAST_AREA
    ]
    return Seen(background, tuple(sorted(found, key=lambda thing: thing.x)))


def faults(picture: Image.Image, scene: Scene) -> list[str]:
    """How a picture differs from a scene, in words: number, colours, shapes, sides, place, background.

    Patterns, and whether a single thing is small or big, are not judged.
    """
    seen = look(picture)
    wrong = []
    if seen.background != scene.background:
        wrong.append(f"background {seen.background}, not {scene.background}")
    if len(seen.things) != len(scene.things):
        return [*wrong, f"{len(seen.things)} things, not {len(scene.things)}"]
    for thing, (colour, shape) in zip(seen.things, scene.things, strict=True):
        if thing.colour != colour:
            wrong.append(f"{thing.colour} {shape}, not {colour}")
        if thing.shape != shape:
            wrong.append(f"{shape} looks like {thing.shape or 'nothing'} ({thing.likeness:.2f})")
    if scene.place and not _is_there(seen.things[0], scene.place):
        wrong.append(f"not at the {scene.place}")
    return wrong


def _is_there(thing: Found, place: str) -> bool:
    across, down = PLACES[place]
    return (thing.x - 0.5) * across + (thing.y - 0.5) * down > 0.1


def _to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB, (height, width, 3), of levels in 0..255."""
    return cv2.cvtColor((rgb / 255.0).astype(np.float32), cv2.COLOR_RGB2LAB)


@cache
def _palette() -> tuple[tuple[str, ...], np.ndarray]:
    """Names and CIELAB values of the colours, (colours, 3)."""
    levels = np.array([[ImageColor.getrgb(code) for code in COLOURS.values()]], np.float64)
    return tuple(COLOURS), _to_lab(levels)[0]


@cache
def _tone(name: str) -> np.ndarray:
    """The second colour of a background's pattern, in CIELAB."""
    return _to_lab(np.array([[tone_of(COLOURS[name])]], np.float64))[0, 0]


def _name(lab: np.ndarray) -> str:
    names, values = _palette()
    return names[int(np.linalg.norm(values - lab, axis=1).argmin())]


def _background(lab: np.ndarray) -> str:
    """The most frequent colour of the picture's rim; a pattern's tone counts as its colour."""
    sides = (lab[:2], lab[-2:], lab[:, :2], lab[:, -2:])
    rim = np.concatenate([side.reshape(-1, 3) for side in sides])
    names, _ = _palette()
    near = np.stack([_from_line(rim, name) for name in names])  # (colours, pixels)
    return names[int(np.bincount(near.argmin(0), minlength=len(names)).argmax())]


def _from_line(lab: np.ndarray, name: str) -> np.ndarray:
    """Each pixel's distance from the line between a colour and its tone, on which blurred patterns lie."""
    names, values = _palette()
    base = values[names.index(name)]
    along = _tone(name) - base
    share = ((lab - base) @ along / (along @ along)).clip(0, 1)
    return np.linalg.norm(lab - base - share[..., None] * along, axis=-1)


def _examine(lab: np.ndarray, mask: np.ndarray, background: str) -> Found:
    """The thing in a mask, (height, width) of bool."""
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    value = np.median(lab[core if core.sum() >= 8 else mask], axis=0)
    outline = _outline(lab, mask, value, background)
    moments = cv2.moments(outline)
    x, y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    placed = _place(outline, x, y, moments["m00"])
    likeness, shape = max((_overlap(placed, template), name) for name, template in _templates())
    height, width = mask.shape
    shape = shape if likeness >= LEAST_LIKENESS else ""
    return Found(_name(value), shape, (x + 0.5) / width, (y + 0.5) / height, moments["m00"], likeness)


def _outline(lab: np.ndarray, mask: np.ndarray, value: np.ndarray, background: str) -> np.ndarray:
    """How much of each pixel the thing covers, 0 to 1: where the pixel lies between background and thing."""
    names, values = _palette()
    base = values[names.index(background)]
    along = value - base
    share = ((lab - base) @ along / (along @ along)).clip(0, 1)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.where(share > 0.3, share, 0).astype(np.float32) * near


def _place(outline: np.ndarray, x: float, y: float, area: float) -> np.ndarray:
    """An outline, moved to the middle of the grid and scaled to the area that all outlines have there."""
    scale = _UNIT / area**0.5
    shift = np.array([[scale, 0, _GRID / 2 - scale * x], [0, scale, _GRID / 2 - scale * y]])
    return cv2.warpAffine(outline, shift, (_GRID, _GRID), flags=cv2.INTER_LINEAR)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two soft outlines, 0 to 1."""
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


@cache
def _templates() -> tuple[tuple[str, np.ndarray], ...]:
    """Every shape as the world draws it, in several sizes, since small ones are blurred."""
    return tuple((name, _template(name, radius)) for name in SHAPES_AND_SHS for radius in _RADII)


def _template(name: str, radius: float) -> np.ndarray:
    drawn = np.asarray(draw_mask(SQUARE, name, (32, 32), radius), np.float32) / 255
    moments = cv2.moments(drawn)
    return _place(drawn, moments["m10"] / moments["m00"], moments["m01"] / moments["m00"], moments["m00"])
