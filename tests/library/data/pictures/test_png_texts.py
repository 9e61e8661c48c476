"""PNGs with megabytes of text, as image generators write them, have the pixels they have without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from library.data.pictures.images import load_image, read_size
from library.data.pictures.integrity import inspect


@pytest.mark.parametrize("kind", ["ztxt", "itxt", "many", "plain"])
def test_they_open(kind: str, tmp_path: Path) -> None:
    texts, big = PngInfo(), "workflow " * 400_000
    for number in range(70 if kind == "many" else 1):
        if kind == "itxt":
            texts.add_itxt("workflow", big, zip=True)
        elif kind == "plain":
            texts.add_text("workflow", big * 20)
        else:
            texts.add_text(f"workflow{number}", big[: 2**20], zip=True)
    pixels = np.random.default_rng(1).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, pnginfo=texts)
    assert inspect(path) == read_size(path) == (30, 40)
    np.testing.assert_array_equal(np.asarray(load_image(path)), pixels)


def test_what_stands_before_and_behind_the_texts_still_counts(tmp_path: Path) -> None:
    """Orientation and colours come from other chunks."""
    texts, exif = PngInfo(), Image.Exif()
    texts.add_text("workflow", "x" * 3_000_000, zip=True)
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 40)).save(path, pnginfo=texts, exif=exif)
    assert load_image(path).size == (40, 30)
