"""How often the judge of tests/judge.py errs, on pictures whose contents are known."""

from __future__ import annotations

import dataclasses

import numpy as np
from judge import faults, look
from make_world import WIDE, Scene, choose_scene, draw, sentence
from PIL import Image, ImageFilter

from library.randomness import keyed_random

PICTURES = 1000


def drawn(number: int) -> tuple[Scene, Image.Image]:
    rng = keyed_random(77, "judge", number)
    scene = choose_scene(rng)
    return scene, draw(scene, rng)


def errors(change: object = lambda picture, number: picture) -> list[str]:
    """What the judge finds wrong in pictures that are right."""
    found = []
    for number in range(PICTURES):
        scene, picture = drawn(number)
        if wrong := faults(change(picture, number), scene):
            found.append(f"{sentence(scene)} {scene.size}: {'; '.join(wrong)}")
    return found


def softened(picture: Image.Image, number: int) -> Image.Image:
    """As a model draws: edges blurred, levels off by a few."""
    noise = np.random.default_rng(number).normal(0, 4, (picture.height, picture.width, 3))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)), np.float64)
    return Image.fromarray((blurred + noise).clip(0, 255).astype(np.uint8))


def test_drawn_pictures_are_judged_right() -> None:
    wrong = errors()
    assert len(wrong) <= 0.03 * PICTURES, "\n".join(wrong)


def test_soft_and_noisy_pictures_are_judged_right() -> None:
    wrong = errors(softened)
    assert len(wrong) <= 0.03 * PICTURES, "\n".join(wrong)


def test_a_picture_with_one_thing_otherwise_is_judged_wrong() -> None:
    """Each colour, shape, place and background exchanged in turn, and a thing too many or too few."""
    passed = []
    for number in range(PICTURES):
        scene, picture = drawn(number)
        passed += [
            f"{sentence(scene)} taken for {sentence(other)}"
            for other in others(scene, number)
            if not faults(picture, other)
        ]
    assert passed == []


def others(scene: Scene, number: int) -> list[Scene]:
    """Scenes that differ from this one in a single respect."""
    strange = choose_scene(keyed_random(78, "judge", number))
    (colour, shape), *rest = scene.things
    new_colour, new_shape = strange.things[0]
    candidates = [
        dataclasses.replace(scene, things=((new_colour, shape), *rest)),
        dataclasses.replace(scene, things=((colour, new_shape), *rest)),
        dataclasses.replace(scene, things=scene.things[::-1]),
        dataclasses.replace(scene, background=strange.background),
        dataclasses.replace(scene, things=(*scene.things, strange.things[0])),
    ]
    if scene.place:
        opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
        candidates.append(dataclasses.replace(scene, place=opposite[scene.place]))
    return [other for other in candidates if other != scene]


def test_a_picture_is_described() -> None:
    scene = Scene((("red", "star"), ("white", "moon")), "blue", "striped", size=WIDE)
    seen = look(draw(scene, keyed_random(1, "described")))
    assert seen.background == "blue"
    assert [(thing.colour, thing.shape) for thing in seen.things] == [("red", "star"), ("white", "moon")]
    assert seen.things[0].x < 0.5 < seen.things[1].x


def test_a_shape_that_is_none_is_called_none() -> None:
    picture = Image.new("RGB", (64, 64), "#2456c7")
    picture.paste(Image.new("RGB", (50, 6), "#d7263d"), (7, 29))
    (thing,) = look(picture).things
    assert (thing.colour, thing.shape) == ("red", "")
