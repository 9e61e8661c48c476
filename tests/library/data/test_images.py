import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from library.data.buckets import Fit
from library.data.images import UPRIGHT, load_image, load_pixels, read_size, resize
from library.problems import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners():
    """An upright 3 x 2 picture: red top left, green top right, blue bottom left, white elsewhere."""
    pixels = np.full((2, 3, 3), 255, np.uint8)
    pixels[0, 0], pixels[0, 2], pixels[1, 0] = RED, GREEN, BLUE
    return Image.fromarray(pixels)


@pytest.fixture
def upright():
    return corners()


def png(mode_code, depth, rows, size, *chunks):
    """A PNG file by hand, for layouts that Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", *size, depth, mode_code, 0, 0, 0)
    extra = b"".join(chunk(*c) for c in chunks)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_in_the_size_and_in_the_pixels(tmp_path, upright, orientation, suffix):
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright.transpose(UPRIGHT[inverse]) if inverse in UPRIGHT else upright
    stored = stored.resize((stored.width * 16, stored.height * 16), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    stored.save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {"lossless": True}))
    assert read_size(path) == (48, 32)
    middles = np.asarray(load_image(path))[8::16, 8::16].astype(int)
    assert np.abs(middles - np.asarray(upright)).max() < 40  # JPEG smears colours a little


def test_nonsense_in_exif_means_upright(tmp_path, upright):
    exif = Image.Exif()
    exif[0x0112] = 77
    upright.save(tmp_path / "a.png", exif=exif)
    upright.save(tmp_path / "b.webp", lossless=True, exif=b"Exif\0\0rubbish")
    assert read_size(tmp_path / "a.png") == read_size(tmp_path / "b.webp") == (3, 2)
    assert load_image(tmp_path / "b.webp").size == (3, 2)


def test_transparency_is_put_on_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    result = np.asarray(load_image(tmp_path / "a.png"))[0].tolist()
    assert result == [[255, 255, 255], [10, 20, 30], [127, 127, 127]]


def test_grey_with_alpha_is_put_on_white(tmp_path):
    Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8), "LA").save(tmp_path / "a.png")
    assert np.asarray(load_image(tmp_path / "a.png"))[0].tolist() == [[255] * 3, [9] * 3]


def test_a_palette_keeps_its_colours_and_its_transparent_entry_turns_white(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "transparent.png", transparency=1)
    assert np.asarray(load_image(tmp_path / "plain.png"))[0].tolist() == [[*RED], [*GREEN], [*BLUE]]
    assert np.asarray(load_image(tmp_path / "transparent.png"))[0].tolist() == [[*RED], [*WHITE], [*BLUE]]


def test_the_transparent_colour_of_an_rgb_png_turns_white(tmp_path):
    rows = [bytes([*RED, *GREEN])]
    content = png(2, 8, rows, (2, 1), (b"tRNS", struct.pack(">HHH", 255, 0, 0)))
    (tmp_path / "a.png").write_bytes(content)
    assert np.asarray(load_image(tmp_path / "a.png"))[0].tolist() == [[*WHITE], [*GREEN]]


def test_one_bit_images_become_black_and_white(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    assert np.asarray(load_image(tmp_path / "a.png"))[0].tolist() == [[0] * 3, [255] * 3]


def test_16_bit_grey_is_scaled_by_257(tmp_path):
    values = np.array([[0, 128, 129, 257, 32896, 65534, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    grey = np.asarray(load_image(tmp_path / "a.png"))[0, :, 0].tolist()
    assert grey == [0, 0, 1, 1, 128, 255, 255]


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.zeros((16, 32, 4), np.uint8)
    inks[:, :16, 1:3] = 255  # magenta and yellow make red
    inks[:, 16:, 3] = 255  # black
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=95)
    pixels = np.asarray(load_image(tmp_path / "a.jpg")).astype(int)
    assert np.abs(pixels[8, 4] - RED).max() < 8
    assert pixels[8, 28].max() < 8


def test_colours_are_converted_from_the_embedded_profile_to_srgb(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The same profile under another name, its red and green primaries exchanged.
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "other".encode("utf-16-be")[:8])
    image = Image.new("RGBA", (2, 2), (*RED, 255))
    image.putpixel((1, 1), (*RED, 0))
    for name, profile in {"srgb": srgb, "broken": b"rubbish", "swapped": swapped}.items():
        image.save(tmp_path / f"{name}.png", icc_profile=profile)
    for name, expected in {"srgb": RED, "broken": RED, "swapped": GREEN}.items():
        pixels = np.asarray(load_image(tmp_path / f"{name}.png")).astype(int)
        assert np.abs(pixels[0, 0] - expected).max() <= 2, name
        assert pixels[1, 1].tolist() == [*WHITE]


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_the_first_frame_of_an_animation_is_used(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert read_size(path) == (8, 8)
    assert np.asarray(load_image(path))[0, 0].tolist() == [*RED]


def test_bad_files_say_what_is_wrong(tmp_path, upright):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    buffer = io.BytesIO()
    corners().resize((64, 64)).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:-300])
    expected = {
        "empty.png": "is empty (0 bytes); replace or remove it",
        "text.png": "is not an image; replace or remove it",
        "cut.jpg": "cannot be read as an image: image file is truncated",
        "missing.png": "there is no such file",
    }
    for name, text in expected.items():
        with pytest.raises(UserError) as caught:
            load_image(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {text}")
    assert read_size(tmp_path / "cut.jpg") == (64, 64)  # a header says nothing about the rest


def test_images_shrink_by_area_and_grow_by_lanczos_unless_told(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    pixels = np.asarray(image)
    smaller = cv2.resize(pixels, (30, 20), interpolation=cv2.INTER_AREA)
    assert np.array_equal(resize(image, (30, 20)), smaller)
    larger = np.asarray(image.resize((61, 20), Image.Resampling.LANCZOS))
    assert np.array_equal(resize(image, (61, 20)), larger)
    assert np.array_equal(resize(image, (60, 40)), pixels)
    for name, flag in {
        "nearest": cv2.INTER_NEAREST_EXACT,
        "bilinear": cv2.INTER_LINEAR,
        "linear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
    }.items():
        assert np.array_equal(resize(image, (31, 21), name), cv2.resize(pixels, (31, 21), interpolation=flag))


def test_pixels_are_cropped_then_mirrored(tmp_path):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    fit = Fit(bucket=(3, 4), resized=(6, 4))
    assert np.array_equal(load_pixels(tmp_path / "a.png", fit, crop=(2, 0)), pixels[:, 2:5])
    flipped = load_pixels(tmp_path / "a.png", fit, crop=(2, 0), flip=True)
    assert np.array_equal(flipped, pixels[:, 2:5][:, ::-1])


def test_an_image_that_changed_its_size_since_the_scan_is_refused(tmp_path, upright):
    upright.save(tmp_path / "a.png")
    with pytest.raises(UserError, match="was 9x9 at the start of the run and is 3x2 now"):
        load_pixels(tmp_path / "a.png", Fit((3, 2), (3, 2)), crop=(0, 0), size=(9, 9))
