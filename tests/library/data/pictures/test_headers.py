import io
import struct
import tracemalloc

import pytest
from picture_files import encoded, exif
from PIL import Image

from library.data.pictures.headers import HEAD, Content, size_in_header


def file_bytes(kind, size=(70, 48), **options):
    return encoded(Image.new(options.pop("mode", "RGB"), size, 1), kind, **options)


def size_of(content):
    return size_in_header(Content(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"mode": "P"}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"mode": "L"}),
        ("JPEG", {"mode": "CMYK", "comment": "hello"}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"mode": "RGBA"}),
        ("BMP", {}),
        ("BMP", {"mode": "P"}),
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (70, 48), "red")]}),
    ],
)
def test_common_files_give_their_size(kind, options):
    assert size_of(file_bytes(kind, **options)) == (70, 48)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_image(kind, orientation):
    expected = (48, 70) if orientation >= 5 else (70, 48)
    assert size_of(file_bytes(kind, exif=exif(orientation))) == expected


def test_a_long_header_is_read_as_far_as_needed():
    long = exif(6, more=HEAD)
    assert [size_of(file_bytes(kind, exif=long)) for kind in ("PNG", "JPEG", "WEBP")] == [(48, 70)] * 3


def test_a_length_in_a_header_takes_no_memory_before_it_is_there():
    image = file_bytes("PNG")
    lie = struct.pack(">I4s", 2**31 - 1, b"eXIf")
    tracemalloc.start()
    assert size_of(image[:33] + lie + bytes(HEAD)) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * HEAD


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        file_bytes("GIF"),
        file_bytes("AVIF"),
        file_bytes("BMP")[:20],
        file_bytes("PNG").replace(b"IDAT", b"IDIT"),
        file_bytes("PNG")[:20],
        file_bytes("JPEG")[:30],
        file_bytes("WEBP")[:20],
        file_bytes("WEBP", exif=b"Exif\0\0rubbish"),
        file_bytes("JPEG", exif=b"Exif\0\0rubbish"),
    ],
)
def test_anything_else_is_left_to_pillow(content):
    assert size_of(content) is None
