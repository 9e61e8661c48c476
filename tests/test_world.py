"""The demo's little world: its pictures, captions and what is held out, and that trainers can read it."""

from __future__ import annotations

import sys
from pathlib import Path

import make_examples
import make_world
import pytest
from judge import faults
from make_world import HELD_OUT, Scene, choose_scene, draw, sentence, tags
from stand_ins import LATENTS

import fine_tune
from library.data.summary import warning_lines
from library.data.training_data import TrainingData
from library.options.parser import parse
from library.randomness import keyed_random

DEMO = Path(make_world.__file__).parent


def test_the_world_can_be_trained_by_its_own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_world.py", str(tmp_path), "--count", "800"])
    make_world.main()
    argv = ["--config_file", str(DEMO / "from_scratch.toml"), "--train_data_dir", str(tmp_path)]
    argv += ["--in_json", str(tmp_path / "metadata.json"), "--pretrained_model_name_or_path", "any"]
    data = TrainingData.scan(parse(fine_tune.Run, argv=argv).data, latent_space=LATENTS)
    assert data.image_count == 800
    assert {record.fit.bucket for record in data.records} == {(64, 64), (80, 48), (48, 80)}
    assert warning_lines(data) == []


def test_no_picture_of_the_world_has_a_held_out_pair() -> None:
    scenes = [choose_scene(keyed_random(1, "world", number)) for number in range(2000)]
    shown = {thing for scene in scenes for thing in scene.things}
    assert len(shown) == 12 * 12 - len(HELD_OUT)
    assert not shown & HELD_OUT


def test_captions_say_what_is_in_a_picture() -> None:
    one = Scene((("orange", "star"),), "blue", "striped", place="top", scale="")
    assert sentence(one) == "an orange star at the top on a striped blue background"
    assert tags(one) == "1 object, orange star top, striped blue background"
    two = Scene((("red", "star"), ("green", "circle")), "orange")
    left_and_right = "a red star on the left and a green circle on the right"
    assert sentence(two) == f"{left_and_right} on an orange background"
    assert tags(two) == "2 objects, red star left, green circle right, orange background"


def test_the_example_pictures_show_ten_different_shs() -> None:
    scenes = make_examples.example_scenes()
    pictures = [draw(scene, keyed_random(7, "shs picture", n)) for n, scene in enumerate(scenes)]
    assert [faults(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)] == [[]] * 10
    assert len({scene.things[0][0] for scene in scenes}) == 10
