"""The demo's parts. `make demo` itself starts every command anew and takes most of a minute: not a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "demo"))

import demo
import make_pictures

import train_network
from library.data.training_data import TrainingData
from library.options.parser import parse


def test_the_pictures_can_be_trained_by_the_demos_own_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_pictures.py", str(tmp_path)])
    make_pictures.main()
    config = Path(demo.__file__).with_name("lora.toml")
    run = parse(train_network.Run, argv=["--config_file", str(config), "--train_data_dir", str(tmp_path)])
    data = TrainingData.scan(run.data)
    assert (data.image_count, data.train_count) == (12, 48)
    assert len(data.buckets) == 3  # square, wide and tall pictures
    assert data.warnings() == []


def test_before_and_after_stand_in_two_rows() -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    sheet = demo.compare([red, red], [blue, blue])
    middle = demo.MARGIN + demo.TILE // 2
    column = [sheet.getpixel((middle, y)) for y in range(sheet.height)]
    assert column.index((255, 0, 0)) < column.index((0, 0, 255))
    assert (column.count((255, 0, 0)), column.count((0, 0, 255))) == (demo.TILE, demo.TILE)
