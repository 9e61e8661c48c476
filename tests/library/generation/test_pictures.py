"""Names and files of a run's pictures."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from library.generation.pictures import picture_name, save_picture
from library.generation.request import PromptRequest


def test_file_names_are_those_of_sd_scripts() -> None:
    assert picture_name("20240131235959", 4, 42) == "im_20240131235959_004_42.png"


def test_a_picture_carries_its_settings(tmp_path: Path) -> None:
    request = PromptRequest("ein Mädchen 少女", "ugly", steps=3, scale=1.5, seed=8, sampler="euler")
    save_picture(tmp_path / "new" / "x.png", Image.new("RGB", (8, 8), (1, 2, 3)), request)
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert picture.getpixel((0, 0)) == (1, 2, 3)
        assert picture.text == {
            "prompt": "ein Mädchen 少女",
            "seed": "8",
            "sampler": "euler",
            "steps": "3",
            "scale": "1.5",
            "negative-prompt": "ugly",
        }
