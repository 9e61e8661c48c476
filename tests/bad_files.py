"""Files that are no usable images, each with a part of what their user should be told."""

import struct
import zlib

from picture_files import PNG_SIGNATURE, chunk, encoded, photo, png
from PIL import Image


def bad_images():
    """file name -> (content, part of the cause)."""
    return {**_not_images(), **_cut_off(), **_impossible()}


def make_bad_images(folder):
    """Writes them all, and what is bad but has no content; path -> part of the cause."""
    folder.mkdir(parents=True, exist_ok=True)
    causes = {}
    for name, (content, cause) in bad_images().items():
        (folder / name).write_bytes(content)
        causes[folder / name] = cause
    (folder / "folder.png").mkdir()
    causes[folder / "folder.png"] = "is a folder, not an image"
    causes[folder / "missing.png"] = "there is no such file"
    return causes


def _not_images():
    return {
        "empty.png": (b"", "is empty (0 bytes)"),
        "text.png": (b"a caption, not a picture\n", "is text, not an image"),
        "text16.png": ("a caption".encode("utf-16"), "is text, not an image"),
        "page.jpg": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page, not an image"),
        "drawing.png": (b'<?xml version="1.0"?>\n<svg width="8"></svg>', "is an SVG drawing, not an image"),
        "pointer.png": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 456\n",
            "is a Git LFS pointer, not an image",
        ),
        "paper.png": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF document, not an image"),
        "archive.webp": (b"PK\x03\x04" + bytes(60), "is a ZIP archive, not an image"),
        "packed.jpg": (b"\x1f\x8b\x08" + bytes(60), "is a gzip archive, not an image"),
        "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(60), "is a HEIC photo, which cannot be read"),
        "film.webp": (b"\0\0\0\x18ftypisom" + bytes(60), "is a video, which cannot be read"),
        "noise.webp": (bytes(range(1, 256)) * 8, "is something else, not an image"),
        "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is text, not an image"),
    }


def _cut_off():
    image = photo((160, 120))
    whole = {
        "cut.png": encoded(image, "PNG"),
        "cut.jpg": encoded(image, "JPEG"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
    }
    files = {name: (content[:-300], "is cut off") for name, content in whole.items()}
    for name, content in whole.items():  # as a program leaves it that reserves the space first
        zeros = content[: len(content) // 2] + bytes(len(content) // 2)
        files[f"zeros_{name}"] = (zeros, "is cut off")
    return {
        **files,
        "without_end.jpg": (whole["cut.jpg"][:-2], "is cut off"),
        "without_end.png": (whole["cut.png"][:-12], "is cut off"),
        "cut.webp": (encoded(image, "WEBP")[:-300], "cannot be decoded"),
        "lossless.webp": (encoded(image, "WEBP", lossless=True)[:-300], "cannot be decoded"),
        "cut.bmp": (encoded(image, "BMP")[:-300], "cannot be decoded: image file is truncated"),
        "cut.avif": (encoded(image, "AVIF")[:-300], "is a damaged or cut off AVIF image"),
        "start.avif": (encoded(image, "AVIF")[:40], "is a damaged or cut off AVIF image"),
        "start.png": (whole["cut.png"][:20], "is cut off"),
        "start.jpg": (whole["cut.jpg"][:20], "is a damaged or cut off JPEG image"),
        "gif.png": (encoded(image, "GIF")[:-300], "cannot be decoded: image file is truncated"),
        "tiff.jpg": (encoded(image, "TIFF")[:-300], "cannot be decoded: image file is truncated"),
    }


def _impossible():
    return {
        "no_width.png": (png(2, 8, [b""], (0, 5)), "has no pixels (0x5)"),
        "wide.png": (_header_only(200_000, 10), "is too large to decode (200000x10)"),
        "bomb.png": (_header_only(30_000, 30_000), "is too large to decode (30000x30000)"),
        "bomb.gif.png": (_gif_header(60_000, 60_000), "is too large to decode"),
        "without_picture.png": (_without_picture(), "is cut off"),
        "without_picture.jpg": (b"\xff\xd8\xff\xd9", "is a damaged or cut off JPEG image"),
    }


def _header_only(width, height):
    """What an attacker sends: a large size and next to no data."""
    return png(0, 1, [b""], (width, height))


def _gif_header(width, height):
    content = bytearray(encoded(Image.new("P", (1, 1)), "GIF"))
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


def _without_picture():
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"no picture"))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + text + chunk(b"IEND", b"")
