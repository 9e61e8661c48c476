"""Smaller copies of pictures, against the sizes that sd-scripts meant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import call
from PIL import Image

from library.problems import UserError
from library.stopping import Stopped
from tools import resize_images_to_resolution

DATA = Path(__file__).parents[1] / "data" / "preparation.json"
ROWS = json.loads(DATA.read_text(encoding="utf-8"))["resized"]
# What sd-scripts does otherwise: it knows no suffix in capitals, and an empty picture is an exception.
FAULTS = {"b.JPG": ("b+256x256.jpg", [80, 40])}


def resize(source: Path, target: Path, *words: object) -> None:
    call(resize_images_to_resolution.main, "resize_images_to_resolution.py", source, target, *words)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(map(str, row["options"].values())))
def test_copies_have_the_sizes_that_sd_scripts_means(row: dict, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name, (width, height, mode) in row["pictures"].items():
        Image.new(mode, (width, height), 200 if mode == "L" else "red").save(source / name)
    for name in row["also"]:
        (source / name).write_text(name)
    words = [word for name, value in row["options"].items() for word in (f"--{name}", value)]
    words = [word for word in words if word is not True]
    if "error" in row:
        with pytest.raises(UserError, match="a.png: would be 10x5, less than --divisible_by 64"):
            resize(source, target, *words)
    else:
        resize(source, target, *words)
    right = dict(FAULTS.get(name, (name, value)) for name, value in row["files"].items())
    found = {}
    for path in target.iterdir():
        is_picture = path.suffix in (".jpg", ".png")
        found[path.name] = list(Image.open(path).size) if is_picture else "copied"
        assert is_picture or path.read_text() in row["also"]
    assert found == right


def test_a_copy_shows_the_middle_upright_and_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((64, 128, 4), np.uint8)
    pixels[:, :64, 0], pixels[:, 64:, 2], pixels[..., 3] = 255, 255, 255
    pixels[:16, ..., 3] = 0
    source = tmp_path / "source"
    source.mkdir()
    Image.fromarray(pixels).save(source / "a.png")
    for name in ("area", "cubic", "lanczos4", "nearest", "linear", "box"):
        words = ("--max_resolution", "32x32", "--divisible_by", 16, "--interpolation", name, "--save_as_png")
        resize(source, tmp_path / name, *words)
        copy = np.asarray(Image.open(tmp_path / name / "a+32x32.png"))
        assert copy.shape == (16, 32, 3)  # 45x22, cropped
        assert copy[10, 2].tolist() == [255, 0, 0] and copy[10, 29].tolist() == [0, 0, 255]
        assert copy[0, 4].tolist() == [255, 255, 255]


def test_bad_pictures_are_listed_and_copies_that_are_there_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    Image.new("RGB", (64, 64), "red").save(source / "a.png")
    (source / "bad.png").write_bytes(b"")
    target.mkdir()
    (target / "a+32x32.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"bad.png: is empty \(0 bytes\)"):
        resize(source, target, "--max_resolution", "32x32,16x16", "--skip_existing")
    assert (target / "a+32x32.jpg").read_bytes() == b"mine"
    assert Image.open(target / "a+16x16.jpg").size == (16, 16)
    assert f"1 copy of 1 picture in {target}; 0 other files copied" in capsys.readouterr().out
    with pytest.raises(UserError, match="--max_resolution: expects sizes such as 512x512,384x384"):
        resize(source, target, "--max_resolution", "512")


def test_copies_stay_when_the_command_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from library.preparation import each_picture

    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in "abc":
        Image.new("RGB", (64, 64), "red").save(source / f"{name}.png")

    def stop_at_the_second(found: Iterable, **_: object) -> Iterator:
        yield next(iter(found))
        raise Stopped(2)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stop:
        patch.setattr(each_picture, "progress_bar", stop_at_the_second)
        resize(source, target, "--max_resolution", "32x32")
    assert stop.value.kept == "1 of 3 pictures done; --skip_existing goes on"
    first = target / "a+32x32.jpg"
    assert Image.open(first).size == (32, 32)
    before = first.stat().st_mtime_ns
    resize(source, target, "--max_resolution", "32x32", "--skip_existing")
    assert sorted(path.name for path in target.iterdir()) == [f"{name}+32x32.jpg" for name in "abc"]
    assert first.stat().st_mtime_ns == before
