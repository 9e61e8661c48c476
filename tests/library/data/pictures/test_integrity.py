"""Files that end too early are found from their structure; odd but good ones raise no alarm."""

import random
import struct

import numpy as np
import pytest
from odd_files import odd_files
from picture_files import chunk, encoded, exif, interlaced_png, photo
from PIL import Image

from library.data.pictures import integrity
from library.data.pictures.images import load_image
from library.data.pictures.integrity import inspect
from library.problems import UserError

PHOTO = photo((96, 70))
CLEAR = PHOTO.convert("RGBA")
CLEAR.putalpha(Image.effect_noise(CLEAR.size, 90))
WHOLE = {
    "png": encoded(PHOTO, "PNG"),
    "png of a palette": encoded(PHOTO.convert("P"), "PNG"),
    "png, interlaced": interlaced_png(np.asarray(photo((20, 30)))),
    "jpeg": encoded(PHOTO, "JPEG"),
    "jpeg, progressive": encoded(PHOTO, "JPEG", progressive=True),
    "jpeg with restarts": encoded(PHOTO, "JPEG", restart_marker_blocks=1),
    "jpeg of cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "jpeg with long exif": encoded(PHOTO, "JPEG", exif=exif(6, more=30_000)),
    "jpeg with a picture inside": encoded(PHOTO, "JPEG", comment=encoded(photo((40, 30)), "JPEG")),
    "webp": encoded(PHOTO, "WEBP"),
    "webp, lossless": encoded(PHOTO, "WEBP", lossless=True),
    "webp with alpha": encoded(CLEAR, "WEBP"),
    "webp with exif": encoded(PHOTO, "WEBP", exif=exif(6)),
    "webp, animated": encoded(PHOTO, "WEBP", save_all=True, append_images=[photo((96, 70), 1)]),
    "bmp": encoded(PHOTO, "BMP"),
    "bmp of one bit": encoded(PHOTO.convert("1"), "BMP"),
    "avif": encoded(PHOTO, "AVIF", speed=10),
    "avif with alpha": encoded(CLEAR, "AVIF", speed=10),
    "gif": encoded(PHOTO, "GIF"),
    "tiff": encoded(PHOTO, "TIFF"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_off_anywhere_is_found(tmp_path, name):
    content, path = WHOLE[name], tmp_path / "a.png"
    path.write_bytes(content)
    inspect(path)
    rng = random.Random(name)
    # The last two bytes of a GIF hold nothing of the picture.
    for length in [*rng.sample(range(len(content) - 2), 30), len(content) - 3, 100, 12]:
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"a\.png: .*; "):
            inspect(path)


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith(("png", "jpeg"))])
def test_a_file_whose_end_is_zeros_is_found(tmp_path, name):
    content, path = WHOLE[name], tmp_path / "a.png"
    for missing in (10, len(content) // 3):
        path.write_bytes(content[:-missing] + bytes(missing))
        with pytest.raises(UserError, match="is cut off|is a damaged"):
            inspect(path)


def test_odd_but_good_files_raise_no_alarm(tmp_path):
    for name, content in odd_files(200, seed=1):
        (tmp_path / name).write_bytes(content)
        size = inspect(tmp_path / name)
        assert size == load_image(tmp_path / name).size, name


@pytest.mark.parametrize("name", [name for name in WHOLE if name not in ("gif", "tiff")])
def test_ordinary_files_are_not_decoded(tmp_path, monkeypatch, name):
    monkeypatch.setattr(integrity, "load_image", lambda path: pytest.fail("decoded"))
    path = tmp_path / "a.png"
    path.write_bytes(WHOLE[name])
    size = (20, 30) if "interlaced" in name else (70, 96) if "exif" in name else (96, 70)
    assert inspect(path) == size


def test_padding_and_text_behind_a_png_or_jpeg_are_passed_over(tmp_path):
    for name in ("png", "jpeg"):
        for junk in (bytes(5000), b"\r\n", b"<!-- made by a web server -->" * 100, WHOLE[name][:200]):
            (tmp_path / name).write_bytes(WHOLE[name] + junk)
            assert inspect(tmp_path / name) == (96, 70)


def test_a_png_with_a_damaged_chunk_before_the_picture_is_found(tmp_path):
    content = WHOLE["png"]
    text = bytearray(chunk(b"tEXt", b"parameters\0a cat"))
    text[:4] = struct.pack(">I", 9)  # the length is wrong, what follows is no chunk
    (tmp_path / "a.png").write_bytes(content[:33] + text + content[33:])
    with pytest.raises(UserError, match="is cut off"):
        inspect(tmp_path / "a.png")
