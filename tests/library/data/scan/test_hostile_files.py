"""Names, pictures and captions that are odd or made to hurt: one line each, at once, or nothing to say."""

import io
import json
import os
import struct
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from picture_files import chunk, encoded, exif, photo, png
from PIL import Image

from library.data.pictures.images import load_image
from library.data.summary import warning_lines
from library.problems import UserError

SECONDS, MEMORY = 2, 100 * 2**20
IMAGE = photo((64, 48))
PNG, JPEG = encoded(IMAGE, "PNG"), encoded(IMAGE, "JPEG")


def look(scan, folder, **options):
    """(names of the pictures in use, lines about this folder) of a scan; both bounded in time and memory."""
    tracemalloc.start()
    start = time.thread_time()
    try:
        data = scan(**options)
        names = [record.image.name for record in data.records]
        lines = [line for line in warning_lines(data) if str(folder) in line]
    except UserError as error:
        names, lines = [], [str(problem) for problem in error.problems]
    assert time.thread_time() - start < SECONDS
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()
    return names, lines


@pytest.fixture
def folder(save_image):
    return save_image("train/1_x/good.png", (64, 48), caption="fine").parent


GOOD_NAMES = {
    "a newline": "a\nb.png",
    "control characters": "a\x1b[31m\x07b.png",
    "right to left": "\u202egnp.exe.png",
    "an emoji": "👩‍🎨.png",
    "combining marks": "e\u0301.png",
    "leading dash": "--rf.png",
    "leading and trailing spaces": "  a .png",
    "dots": "a..png",
    "quotes and dollars": "$(rm -rf '\"`).png",
    "percent": "%s%n%00.png",
    "braces": "{0}{x}.png",
    "a device of Windows": "CON.png",
    "of capitals": "A.PNG",
    "of 251 bytes": "a" * 247 + ".png",
    "HTML": "<script>alert(1)<.png",
    "two suffixes": "a.jpg.png",
    "brackets": "[a]*?.png",
    "a backslash": "a\\b.png",
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("what", GOOD_NAMES)
def test_any_name_that_is_text_is_used_with_its_caption(folder, scan, what):
    path = folder / GOOD_NAMES[what]
    path.write_bytes(PNG)
    caption = path.with_suffix(".caption")
    if len(os.fsencode(caption.name)) <= 255:
        caption.write_text("its caption")
    names, lines = look(scan, folder)
    assert sorted(names) == sorted(["good.png", path.name])
    captions = {record.image.name: record.caption for record in scan().records}
    assert captions[path.name] == ("its caption" if caption.exists() else "x")
    assert all("without a caption" in line for line in lines)


HIDDEN = ("._a.png", ".a.png", "Thumbs.db", "desktop.ini", ".png")


def test_hidden_and_system_files_are_no_pictures(folder, scan):
    for name in HIDDEN:
        (folder / name).write_bytes(b"no picture")
    assert look(scan, folder) == (["good.png"], [])


TWINS = {
    "another suffix": ("a.png", "a.jpg"),
    "another case of the suffix": ("a.PNG", "a.png"),
    "both": ("a.PNG", "a.jpg", "a.jpeg"),
}


@pytest.mark.parametrize("what", TWINS)
def test_pictures_that_share_a_caption_are_one_line(folder, scan, what):
    for name in TWINS[what]:
        (folder / name).write_bytes(JPEG if name.endswith(("jpg", "jpeg")) else PNG)
    names, lines = look(scan, folder)
    if len(list(folder.glob("a.*"))) < len(TWINS[what]):
        pytest.skip("this file system does not tell capitals apart")
    assert names == [] and len(lines) == 1 and "shares its name, and so its caption, with" in lines[0]


def fifo(path):
    os.mkfifo(path)


ENTRIES = {  # what makes it, and what is said of it
    "a folder": (lambda path: path.mkdir(), None),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "is a link to a file that does not exist"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "cannot be read (Too many levels"),
    "a link to a folder": (lambda path: path.symlink_to("."), None),
    "a pipe": (fifo, "1 entry is no file and is left out"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is a pipe or device, not a file"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such entries")
@pytest.mark.parametrize("suffix", [".png", ".caption"])
@pytest.mark.parametrize("what", ENTRIES)
def test_what_is_no_file_is_a_line_and_never_waited_for(folder, scan, what, suffix):
    make, _ = ENTRIES[what]
    (folder / "b.png").write_bytes(PNG)
    if suffix == ".png":
        (folder / "b.png").unlink()
    make((folder / "b").with_suffix(suffix))
    names, lines = look(scan, folder)
    assert len(lines) <= 2 and all("\n" not in line for line in lines)
    assert names == [] or names[-1] == "good.png"
    said = ENTRIES[what][1]
    if suffix == ".png" and said is not None:
        assert any(said in line for line in lines)


def test_a_file_that_may_not_be_read_is_one_line(folder, scan, monkeypatch):
    (folder / "b.png").write_bytes(PNG)
    original = io.FileIO

    def refuse(path, *more):
        if str(path).endswith("b.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *more)

    monkeypatch.setattr("library.data.pictures.integrity.io.FileIO", refuse)
    monkeypatch.setattr("pathlib.Path.open", lambda path, *more, **_: refuse(path))
    names, lines = look(scan, folder)
    assert (names, lines) == (
        [],
        [f"{folder}/b.png: cannot be read (Permission denied); check its permissions and the drive it is on"],
    )


def deep():
    return Image.fromarray(np.full((48, 64), 32896, np.uint16))


GOOD_PICTURES = {  # any suffix; the first pixel, about
    "16 bits": (encoded(deep(), "PNG"), (128, 128, 128)),
    "16 bits in TIFF": (encoded(deep(), "TIFF"), (128, 128, 128)),
    "grey with alpha": (encoded(Image.new("LA", (64, 48), (0, 0)), "PNG"), (255, 255, 255)),
    "CMYK": (encoded(Image.new("CMYK", (64, 48), (0, 0, 0, 0)), "JPEG"), (255, 255, 255)),
    "a broken profile": (
        encoded(Image.new("RGB", (64, 48), "red"), "PNG", icc_profile=b"x" * 999),
        (255, 0, 0),
    ),
    "a broken EXIF": (
        encoded(Image.new("RGB", (64, 48), "red"), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        (255, 0, 0),
    ),
    "an EXIF of 40 kB": (
        encoded(Image.new("RGB", (64, 48), "red"), "PNG", exif=exif(3, more=40_000)),
        (255, 0, 0),
    ),
    "text that unpacks to megabytes": (
        PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30_000_000))) + PNG[33:],
        None,
    ),
    "an odd orientation": (encoded(Image.new("RGB", (64, 48), "red"), "PNG", exif=exif(77)), (255, 0, 0)),
}


@pytest.mark.parametrize("what", GOOD_PICTURES)
def test_an_odd_picture_is_used_without_a_word(folder, scan, what):
    content, colour = GOOD_PICTURES[what]
    (folder / "b.png").write_bytes(content)
    (folder / "b.caption").write_text("x")
    assert look(scan, folder) == (["b.png", "good.png"], [])
    pixel = load_image(folder / "b.png").getpixel((0, 0))
    assert colour is None or max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 1


def bomb(width, height):
    """Much is claimed, next to nothing is there."""
    return png(0, 1, [b""], (width, height))


BAD_PICTURES = {
    "a bomb": (bomb(60_000, 60_000), "is too large to decode (60000x60000)"),
    "the largest size": (bomb(2**31 - 1, 2**31 - 1), "is too large to decode"),
    "a strip of a pixel": (encoded(Image.new("RGB", (1, 60_000)), "PNG"), "too thin to train on"),
    "floating point": (encoded(Image.fromarray(np.full((48, 64), np.nan, np.float32)), "TIFF"), ""),
    "an ico": (b"\0\0\1\0\1\0" + bytes(40), "is something else, not an image"),
    "a HEIC photo": (b"\0\0\0\x18ftypheic" + bytes(60), "is a HEIC photo"),
    "PostScript": (b"%!PS-Adobe-3.0\n(rm) run\n", "is text, not an image"),
    "a script": (b"#!/bin/sh\ntouch it_ran\n", "is text, not an image"),
    "segments of nothing": (b"\xff\xd8" + b"\xff\xe0\0\2" * 3000, "is a damaged or cut off JPEG image"),
    "boxes of nothing": (struct.pack(">I4s4s", 12, b"ftyp", b"avif") * 5000, "AVIF image"),
}


@pytest.mark.parametrize("what", BAD_PICTURES)
def test_a_bad_picture_is_one_line_or_left_out(folder, scan, what):
    content, cause = BAD_PICTURES[what]
    (folder / "b.png").write_bytes(content)
    (folder / "b.caption").write_text("x")
    names, lines = look(scan, folder)
    if not cause:
        assert len(lines) <= 1
        return
    assert names == [] and len(lines) == 1
    assert lines[0].startswith(f"{folder}/b.png: ") and cause in lines[0] and "; " in lines[0]
    names, lines = look(scan, folder, on_bad_image="skip")
    assert names == ["good.png"] and len(lines) == 1 and "1 bad image is left out" in lines[0]


def sparse(path):
    with path.open("wb") as file:
        file.truncate(10**9)


BAD_CAPTIONS = {
    "a gigabyte": (sparse, "is longer than 1,000,000 bytes"),
    "zero bytes": (lambda path: path.write_bytes(b"a\0b"), "is not text: a zero byte at offset 1"),
    "UTF-16 without an end": (lambda path: path.write_bytes(b"\xff\xfea"), "is not UTF-16 text"),
    "a picture": (lambda path: path.write_bytes(PNG), "is not UTF-8 text"),
}


@pytest.mark.parametrize("what", BAD_CAPTIONS)
def test_a_bad_caption_is_one_line(folder, scan, what):
    make, cause = BAD_CAPTIONS[what]
    make(folder / "good.caption")
    names, lines = look(scan, folder)
    assert names == [] and len(lines) == 1
    assert lines[0].startswith(f"{folder}/good.caption: {cause}")


METADATA = {
    "deep": "[" * 100_000,
    "deep inside": '{"good": {"tags": ' + "[" * 100_000,
    "a huge number": '{"good": {"tags": ' + "9" * 100_000 + "}}",
    "a list": "[]",
    "a number": "3",
    "nothing": "",
    "NaN": "NaN",
    "lists for entries": '{"good": []}',
    "numbers for captions": '{"good": {"caption": 3}}',
    "half a character": '{"good": {"caption": "\\ud83d"}}',
    "a zero byte in a key": '{"go\\u0000od": {"caption": "x"}}',
    "a key that climbs": '{"../../../../etc/passwd": {"caption": "x"}}',
    "a key twice": '{"good": {"caption": "x"}, "good": {"caption": "y"}}',
    "an empty key": '{"": {"caption": "x"}}',
    "a key of dots": '{".": {"caption": "x"}, "..": {"caption": "x"}}',
}


@pytest.mark.parametrize("what", METADATA)
def test_bad_metadata_is_one_line(folder, scan, tmp_path, what):
    path = tmp_path / "m.json"
    path.write_text(METADATA[what])
    names, lines = look(scan, folder, in_json=path, train_data_dir=folder)
    assert names == [] and len(lines) == 1
    assert lines[0].startswith(f"{path}: ") and "\n" not in lines[0] and len(lines[0]) < 500


def test_metadata_of_many_missing_pictures_is_one_line(folder, scan, tmp_path):
    entries = {f"no/such/{number}": {"tags": "a"} for number in range(1000)} | {"good": {"tags": "a"}}
    (tmp_path / "m.json").write_text(json.dumps(entries))
    names, lines = look(scan, folder, in_json=tmp_path / "m.json", train_data_dir=folder)
    assert names == [] and "no image was found for 1000 of 1001 entries" in lines[0] and len(lines[0]) < 400
