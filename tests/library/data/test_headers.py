import io

import pytest
from PIL import Image

from library.data.headers import HEAD, size_in_header


def file_bytes(kind, size=(70, 48), **options):
    buffer = io.BytesIO()
    Image.new(options.pop("mode", "RGB"), size, 1).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation, *, more=0):
    data = Image.Exif()
    data[0x010F] = "x" * more
    data[0x0112] = orientation
    return data


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
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (70, 48), "red")]}),
    ],
)
def test_common_files_give_their_size_from_the_first_bytes(kind, options):
    assert size_in_header(file_bytes(kind, **options)[:HEAD]) == (70, 48)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_image(kind, orientation):
    expected = (48, 70) if orientation >= 5 else (70, 48)
    assert size_in_header(file_bytes(kind, exif=exif(orientation))) == expected


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"text",
        file_bytes("BMP"),
        file_bytes("PNG")[:20],
        file_bytes("JPEG")[:30],
        file_bytes("WEBP")[:20],
        file_bytes("WEBP", exif=exif(6)),
        file_bytes("JPEG", exif=exif(6, more=HEAD))[:HEAD],
        file_bytes("JPEG", exif=b"Exif\0\0rubbish"),
        file_bytes("PNG").replace(b"\0\0\0\x46\0\0\0\x30", b"\0\0\0\0\0\0\0\x30"),
    ],
)
def test_anything_else_is_left_to_pillow(head):
    assert size_in_header(head) is None
