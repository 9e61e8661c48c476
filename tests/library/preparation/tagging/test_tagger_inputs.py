"""Pictures as taggers see them, against sd-scripts' values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.preparation.tagging.inputs import InputForm, read_picture, to_input

DATA = Path(__file__).parents[3] / "data" / "preparation.json"
ROWS = json.loads(DATA.read_text(encoding="utf-8"))["tagger"]["inputs"]
WD14 = InputForm(448, channels_first=False, is_bgr=True, value_range="0..255", scaling="sd-scripts")


def gradient(width: int, height: int) -> Image.Image:
    """Red from left to right, green from top to bottom."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None].astype(np.uint8)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None].astype(np.uint8)
    return Image.fromarray(pixels)


def transparent_palette() -> Image.Image:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([10, 20, 30, 200, 200, 200])
    image.info["transparency"] = 1
    return image


PICTURES = {
    "RGB 40x30": lambda: gradient(40, 30),
    "RGB 900x600": lambda: gradient(900, 600),
    "RGB 448x448": lambda: gradient(448, 448),
    "RGB 31x40": lambda: gradient(31, 40),
    "RGBA 20x20 alpha 0": lambda: Image.new("RGBA", (20, 20), (10, 20, 30, 0)),
    "RGBA 20x20 alpha 128": lambda: Image.new("RGBA", (20, 20), (10, 20, 30, 128)),
    "LA": lambda: Image.new("LA", (20, 20), (50, 128)),
    "P transp": transparent_palette,
}


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["image"] in PICTURES], ids=lambda row: row["image"]
)
def test_wd14s_inputs_are_those_of_sd_scripts(row: dict, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture = PICTURES[row["image"]]()
    picture.save(path, **({"transparency": 1} if picture.mode == "P" else {}))
    seen = read_picture(path, WD14)
    assert seen.values.dtype == np.float32 and list(seen.values.shape) == row["shape"]
    assert seen.size == picture.size
    mean = seen.values.astype(np.float64).mean((0, 1))
    for found, right in (
        (seen.values[0, 0], row["corner"]),
        (seen.values[224, 224], row["center"]),
        (seen.values[100, 50], row["at_100_50"]),
        (mean, row["mean"]),
    ):
        assert np.abs(found - right).max() <= 1.01


def test_the_golden_values_cover_what_can_be_wrong() -> None:
    """Swapped colours, black padding and squashing are far from them."""
    rows = {row["image"]: row for row in ROWS}
    right = to_input(gradient(40, 30), WD14)
    swapped, corner = right[..., ::-1], rows["RGB 40x30"]["corner"]
    assert np.abs(swapped[100, 50] - rows["RGB 40x30"]["at_100_50"]).max() > 50
    assert corner == [255, 255, 255] and rows["RGB 448x448"]["corner"] == [128, 0, 0]


def test_other_taggers_get_other_colours_and_ranges() -> None:
    image = Image.new("RGB", (4, 4), (255, 0, 51))
    values = {
        "0..255": [255, 0, 51],
        "0..1": [1, 0, 0.2],
        "-1..1": [1, -1, -0.6],
        "imagenet": [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225],
        "clip": [
            (1 - 0.48145466) / 0.26862954,
            -0.4578275 / 0.26130258,
            (0.2 - 0.40821073) / 0.27577711,
        ],
    }
    for name, colour in values.items():
        form = InputForm(2, channels_first=True, is_bgr=False, value_range=name, scaling="bicubic")
        assert np.allclose(to_input(image, form)[:, 0, 0], colour, atol=1e-5), name
        form = InputForm(2, channels_first=False, is_bgr=True, value_range=name, scaling="bicubic")
        assert np.allclose(to_input(image, form)[0, 0], colour[::-1], atol=1e-5), name


def test_bicubic_is_pillows_in_both_directions() -> None:
    bicubic = InputForm(448, channels_first=False, is_bgr=False, value_range="0..255", scaling="bicubic")
    for side in (90, 900):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))
        right = np.asarray(noise.resize((448, 448), Image.Resampling.BICUBIC), np.float32)
        assert np.array_equal(to_input(noise, bicubic), right)
        assert np.abs(to_input(noise, WD14)[..., ::-1] - right).mean() > 0.5
