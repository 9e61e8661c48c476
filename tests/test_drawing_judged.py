"""Pictures from pictures of the demo's world, judged: what was asked is drawn, what was to stay stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exam import GUIDANCE, exam_scenes, judge_pictures
from learning import MODEL
from make_world import Scene, draw, sentence
from PIL import Image

from library.generation.generate import generate
from library.generation.request import PromptRequest
from library.models import load_model
from library.models.base import Model
from library.randomness import keyed_random

pytestmark = pytest.mark.long
COUNT = 48


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(MODEL)


@pytest.fixture
def scenes() -> list[Scene]:
    return exam_scenes("single", COUNT, seed=21)


def begun(scenes: list[Scene], folder: Path, strength: float) -> list[PromptRequest]:
    """Requests that begin with a true picture of each scene."""
    requests = []
    for number, scene in enumerate(scenes):
        path = folder / f"{number}.png"
        draw(scene, keyed_random(21, "begun", number)).save(path)
        width, height = scene.size
        request = PromptRequest(sentence(scene), width=width, height=height, scale=GUIDANCE, seed=number)
        requests.append(replace(request, image=path, strength=strength))
    return requests


def drawn(model: Model, requests: list[PromptRequest]) -> list[Image.Image]:
    pictures = generate(model, requests, device=torch.device("cpu"))
    assert None not in pictures
    return [picture for picture in pictures if picture is not None]


def test_a_picture_drawn_over_with_its_own_prompt_stays_right(
    model: Model, scenes: list[Scene], tmp_path: Path
) -> None:
    pictures = drawn(model, begun(scenes, tmp_path, 0.4))
    right = 1 - len(judge_pictures(pictures, scenes)) / COUNT
    print(f"\nright after 0.4 of the steps with the picture's own prompt: {right:.1%} of {COUNT}")
    assert right >= 0.95


def test_another_colour_that_is_asked_for_is_drawn(model: Model, scenes: list[Scene], tmp_path: Path) -> None:
    """So the prompt counts: the same strength with another colour does not leave the picture as it is."""
    others = [replace(scene, things=(("gray", scene.things[0][1]),)) for scene in scenes]
    kept = [
        number for number, scene in enumerate(scenes) if "gray" not in (scene.background, scene.things[0][0])
    ]
    requests = [
        replace(request, prompt=sentence(other))
        for request, other in zip(begun(scenes, tmp_path, 0.4), others, strict=True)
    ]
    pictures = drawn(model, [requests[number] for number in kept])
    right = 1 - len(judge_pictures(pictures, [others[number] for number in kept])) / len(kept)
    print(f"\nthe asked colour in place of the picture's: {right:.1%} of {len(kept)}")
    assert right >= 0.8


def test_only_the_inside_of_a_mask_changes(model: Model, scenes: list[Scene], tmp_path: Path) -> None:
    requests = begun(scenes[:12], tmp_path, 0.8)
    masks = []
    for number, request in enumerate(requests):
        mask = Image.new("L", (request.width, request.height))
        mask.paste(255, (0, 0, request.width // 2, request.height))
        mask.save(tmp_path / f"mask{number}.png")
        masks.append(replace(request, mask=tmp_path / f"mask{number}.png"))
    for picture, request in zip(drawn(model, masks), masks, strict=True):
        assert request.image is not None
        before, after = np.asarray(Image.open(request.image).convert("RGB"), int), np.asarray(picture, int)
        inside = (slice(None), slice(request.width // 2))
        assert np.array_equal(after[:, request.width // 2 :], before[:, request.width // 2 :])
        assert np.abs(after[inside] - before[inside]).mean() > 0.5
