"""The demo's parts. `make demo` itself starts every command anew and takes minutes: not a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "demo"))

import demo
import make_examples
from exam import exam_scenes
from make_world import draw
from sheets import MARGIN, TILE
from stand_ins import LATENTS

import train_network
from library.data.summary import warning_lines
from library.data.training_data import TrainingData
from library.options.parser import parse
from library.randomness import keyed_random

DEMO = Path(demo.__file__).parent


def test_the_examples_can_be_trained_by_the_demos_own_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_examples.py", str(tmp_path)])
    make_examples.main()
    argv = ["--config_file", str(DEMO / "lora.toml")]
    argv += ["--train_data_dir", str(tmp_path / "pictures"), "--reg_data_dir", str(tmp_path / "known")]
    data = TrainingData.scan(parse(train_network.Run, argv=argv).data, latent_space=LATENTS)
    assert (data.image_count, data.train_count) == (110, 100)
    assert warning_lines(data) == []


def test_the_demo_asks_for_a_shs_in_colours_it_was_not_shown() -> None:
    shown = {(scene.things[0][0], scene.background) for scene in make_examples.example_scenes()}
    asked = {(scene.things[0][0], scene.background) for scene in exam_scenes("shs", demo.COUNT)}
    assert len(asked) > 20
    assert not asked & shown


def test_examples_before_and_after_stand_in_three_labelled_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "OUT", tmp_path)
    for number in range(10):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), "green").save(tmp_path / "pictures" / f"{number}.png")
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    scenes = [*exam_scenes("shs", demo.COUNT), *exam_scenes("single", demo.COUNT)]
    sheet = demo.compare(scenes, [red] * len(scenes), [blue] * len(scenes))
    column = [sheet.getpixel((MARGIN + TILE // 2, y)) for y in range(sheet.height)]
    rows = [column.index(colour) for colour in ((0, 128, 0), (255, 0, 0), (0, 0, 255))]
    assert rows == sorted(rows)
    assert [column.count(colour) for colour in ((0, 128, 0), (255, 0, 0), (0, 0, 255))] == [TILE] * 3


def test_the_scores_count_right_pictures_of_both_kinds() -> None:
    scenes = [*exam_scenes("shs", demo.COUNT), *exam_scenes("single", demo.COUNT)]
    right = [draw(scene, keyed_random(1, "score", n)) for n, scene in enumerate(scenes)]
    wrong = [Image.new("RGB", (64, 64), "red")] * demo.COUNT
    lines = demo.scores(scenes, [*wrong, *right[demo.COUNT :]], right).split("\n")
    assert [" ".join(line.split()) for line in lines] == [
        "shs before 0% with the LoRA 100%",
        "known things before 100% with the LoRA 100%",
    ]
