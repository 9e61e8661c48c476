"""The references are arrays: what a file should become is computed from what was put into it."""

import struct
import sys

import cv2
import numpy as np
import pytest
from icc_profiles import D50, P3, cmyk_profile, grey_profile, lab_to_xyz, rgb_profile, xyz_to_srgb
from picture_files import deep_png, encoded, exif, photo, png
from PIL import Image

from library.data.pictures.augmentation import ColourShift
from library.data.pictures.images import (
    Geometry,
    check_hint,
    load_hint,
    load_image,
    load_pixels,
    load_pixels_and_alpha,
    load_rgba,
    resize,
)
from library.data.pictures.integrity import inspect
from library.problems import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# EXIF 2.3, orientation: where the stored picture's first row and first column belong.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored(upright, orientation):
    """The array a camera writes: its rows and columns are counted from two sides of the upright one."""
    row_side, column_side = SIDES[orientation]
    array = upright if row_side in ("top", "bottom") else np.swapaxes(upright, 0, 1)
    array = array[::-1] if row_side in ("bottom", "right") else array
    return np.ascontiguousarray(array[:, ::-1] if column_side in ("bottom", "right") else array)


def loaded(tmp_path, content, name="a.png"):
    (tmp_path / name).write_bytes(content)
    return np.asarray(load_image(tmp_path / name))


def noise(shape, *, top=256, seed=0):
    kind = np.uint8 if top == 256 else np.uint16
    return np.random.default_rng(seed).integers(0, top, shape, kind)


def differs_by(a, b):
    return np.abs(a.astype(float) - b).max()


def blocks(colours, side=16):
    """Areas of one colour each, which JPEG keeps nearly as they are."""
    return np.asarray(colours, np.uint8)[None].repeat(side, 0).repeat(side, 1)


def middles(pixels, side=16):
    return pixels[side // 2, side // 2 :: side]


@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("webp", 0), ("jpg", 12), ("avif", 12)])
@pytest.mark.parametrize("orientation", SIDES)
def test_exif_orientation_is_undone_in_the_size_and_in_the_pixels(tmp_path, orientation, suffix, tolerance):
    upright = np.asarray(photo((48, 32)))
    options = {"lossless": True} if suffix == "webp" else {"quality": 98, "subsampling": "4:4:4"}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored(upright, orientation)).save(path, exif=exif(orientation), **options)
    assert inspect(path) == (48, 32)
    pixels = np.asarray(load_image(path))
    assert differs_by(pixels, upright) <= tolerance
    if suffix == "jpg":
        assert differs_by(pixels, cv2.imread(str(path))[..., ::-1]) <= 2  # cv2 turns it by itself


def test_alpha_is_turned_upright_with_the_image(tmp_path):
    upright = noise((2, 3, 4))
    Image.fromarray(stored(upright, 6)).save(tmp_path / "a.png", exif=exif(6))
    rgb, alpha = load_rgba(tmp_path / "a.png")
    assert np.array_equal(np.asarray(alpha), upright[..., 3])
    assert np.array_equal(np.asarray(rgb), np.asarray(load_image(tmp_path / "a.png")))


def test_nonsense_in_exif_means_upright(tmp_path):
    photo((3, 2)).save(tmp_path / "a.png", exif=exif(77))
    photo((3, 2)).save(tmp_path / "b.webp", lossless=True, exif=b"Exif\0\0rubbish")
    assert inspect(tmp_path / "a.png") == inspect(tmp_path / "b.webp") == (3, 2)
    assert load_image(tmp_path / "b.webp").size == (3, 2)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_transparency_is_put_on_white(tmp_path, suffix):
    pixels = noise((9, 11, 4))
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", lossless=True, exact=True)
    rgb, alpha = load_rgba(tmp_path / f"a.{suffix}")
    share = pixels[..., 3:] / 255
    assert differs_by(np.asarray(rgb), pixels[..., :3] * share + 255 * (1 - share)) < 1
    assert np.array_equal(np.asarray(alpha), pixels[..., 3])


def test_grey_with_alpha_is_put_on_white(tmp_path):
    Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8), "LA").save(tmp_path / "a.png")
    assert np.asarray(load_image(tmp_path / "a.png"))[0].tolist() == [[255] * 3, [9] * 3]


def test_an_image_without_alpha_has_none(tmp_path):
    photo().save(tmp_path / "a.png")
    assert load_rgba(tmp_path / "a.png")[1] is None


def test_a_palette_keeps_its_colours_and_each_has_its_own_transparency(tmp_path):
    palette, indices = noise((256, 3)), noise((6, 7))
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(loaded(tmp_path, encoded(image, "PNG")), palette[indices])
    assert np.array_equal(loaded(tmp_path, encoded(image, "BMP")), palette[indices])
    alpha = noise(256, seed=1)
    share = alpha[indices][..., None] / 255
    pixels = loaded(tmp_path, encoded(image, "PNG", transparency=alpha.tobytes()))
    assert differs_by(pixels, palette[indices] * share + 255 * (1 - share)) < 1


def test_the_transparent_colour_of_an_rgb_png_turns_white(tmp_path):
    content = png(2, 8, [bytes([*RED, *GREEN])], (2, 1), (b"tRNS", struct.pack(">HHH", 255, 0, 0)))
    assert loaded(tmp_path, content)[0].tolist() == [[*WHITE], [*GREEN]]


@pytest.mark.parametrize(("depth", "row"), [(1, 0b01000000), (2, 0b00011011), (4, 0x0F)])
def test_grey_of_few_bits_is_scaled_and_its_transparent_value_turns_white(tmp_path, depth, row):
    values = [row >> shift & 2**depth - 1 for shift in range(8 - depth, -1, -depth)]
    grey = [value * 255 // (2**depth - 1) for value in values]
    size = (len(values), 1)
    assert loaded(tmp_path, png(0, depth, [bytes([row])], size))[0, :, 0].tolist() == grey
    clear = values[1]
    content = png(0, depth, [bytes([row])], size, (b"tRNS", struct.pack(">H", clear)))
    expected = [255 if value == clear else shown for value, shown in zip(values, grey, strict=True)]
    assert loaded(tmp_path, content)[0, :, 0].tolist() == expected


def test_16_bit_grey_is_scaled_by_257(tmp_path):
    values = np.array([0, 128, 129, 257, 32896, 65534, 65535], np.uint16).reshape(1, -1, 1)
    assert loaded(tmp_path, deep_png(values))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255, 255]
    content = deep_png(values, (b"tRNS", struct.pack(">H", 257)))
    assert loaded(tmp_path, content)[0, :, 0].tolist() == [0, 0, 1, 255, 128, 255, 255]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_colours_are_scaled_by_257_and_put_on_white(tmp_path, channels):
    values = noise((20, 30, channels), top=65536)
    colours, alpha = (values, None) if channels in (1, 3) else (values[..., :-1], values[..., -1:])
    expected = np.rint(colours / 257)
    if alpha is not None:
        share = np.rint(alpha / 257) / 255
        expected = expected * share + 255 * (1 - share)
    pixels = loaded(tmp_path, deep_png(values))
    assert pixels.shape == (20, 30, 3)
    assert differs_by(pixels, expected) <= (0 if alpha is None else 1)


def test_the_transparent_colour_of_a_16_bit_png_is_compared_in_full(tmp_path):
    values = np.array([[[256, 512, 768], [256, 512, 769]]], np.uint16)
    content = deep_png(values, (b"tRNS", struct.pack(">HHH", 256, 512, 768)))
    assert loaded(tmp_path, content)[0].tolist() == [[*WHITE], [1, 2, 3]]


def test_cmyk_becomes_rgb(tmp_path):
    inks = noise((12, 4))
    path = tmp_path / "a.jpg"
    Image.fromarray(blocks(inks), "CMYK").save(path, quality=100, subsampling=0)
    expected = (255 - inks[:, :3].astype(float)) * (255 - inks[:, 3:]) / 255
    assert differs_by(middles(np.asarray(load_image(path))), expected) <= 2


def test_cmyk_is_converted_by_its_profile(tmp_path):
    rng = np.random.default_rng(0)
    labs = np.stack([rng.integers(low, high, (2,) * 4) for low, high in ((25, 95), (-20, 21), (-20, 21))], -1)
    labs[..., 1, :], labs[0, 0, 0, 0] = 0, (100, 0, 0)  # black and white: what is in between is not scaled
    inks = np.array([[255 * (corner >> bit & 1) for bit in (3, 2, 1, 0)] for corner in range(16)])
    path = tmp_path / "a.jpg"
    Image.fromarray(blocks(inks), "CMYK").save(
        path, quality=100, subsampling=0, icc_profile=cmyk_profile(labs)
    )
    expected = xyz_to_srgb(lab_to_xyz(labs.reshape(16, 3)))
    assert differs_by(middles(np.asarray(load_image(path))), expected) <= 3


def test_colours_are_converted_from_the_embedded_profile_to_srgb(tmp_path):
    pixels = noise((12, 12, 3)) // 2 + 64  # colours that sRGB has too
    expected = xyz_to_srgb((pixels / 255) ** 1.8 @ P3.T)
    assert differs_by(pixels, expected) > 20
    for kind in ("PNG", "WEBP"):
        content = encoded(
            Image.fromarray(pixels), kind, lossless=True, exact=True, icc_profile=rgb_profile(P3, 1.8)
        )
        assert differs_by(loaded(tmp_path, content), expected) <= 1.5


def test_grey_is_converted_by_its_profile(tmp_path):
    grey = np.arange(256, dtype=np.uint8)[None]
    content = encoded(Image.fromarray(grey), "PNG", icc_profile=grey_profile(1.8))
    expected = xyz_to_srgb((grey[..., None] / 255) ** 1.8 * D50)
    assert differs_by(grey[..., None], expected) > 15
    assert differs_by(loaded(tmp_path, content), expected) <= 2


def test_colours_are_converted_before_they_are_put_on_white(tmp_path):
    image = Image.fromarray(np.array([[[200, 90, 90, 255], [200, 90, 90, 0]]], np.uint8))
    pixels = loaded(tmp_path, encoded(image, "PNG", icc_profile=rgb_profile(P3, 1.8)))
    assert differs_by(pixels[0, 0], xyz_to_srgb((np.array([200, 90, 90]) / 255) ** 1.8 @ P3.T)) <= 1.5
    assert pixels[0, 1].tolist() == [*WHITE]


@pytest.mark.parametrize("profile", [b"rubbish", grey_profile(1.0), rgb_profile(P3, 1.8)[:200]])
def test_a_profile_that_does_not_fit_is_ignored(tmp_path, profile):
    pixels = noise((4, 4, 3))
    content = encoded(Image.fromarray(pixels), "PNG", icc_profile=profile)
    assert np.array_equal(loaded(tmp_path, content), pixels)


@pytest.mark.parametrize("suffix", ["webp", "png", "avif"])
def test_the_first_frame_of_an_animation_is_used(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], quality=100)
    assert inspect(path) == (16, 16)
    assert differs_by(np.asarray(load_image(path))[0, 0], RED) <= 3


def test_a_suffix_may_say_another_format_than_the_content(tmp_path):
    pixels = noise((5, 6, 3))
    content = encoded(Image.fromarray(pixels), "PNG")
    assert np.array_equal(loaded(tmp_path, content, "a.jpg"), pixels)
    assert inspect(tmp_path / "a.jpg") == (6, 5)


def test_jpeg_xl_without_its_plug_in_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + bytes(50))
    for read in (inspect, load_image):
        with pytest.raises(UserError) as caught:
            read(tmp_path / "a.jxl")
        (problem,) = caught.value.problems
        assert problem.cause.startswith("is a JPEG XL image, which needs a plug-in")
        assert problem.fix == "run: pip install pillow-jxl-plugin"


def test_jpeg_xl_is_read_with_its_plug_in(tmp_path):
    pytest.importorskip("pillow_jxl")
    upright = noise((9, 12, 3))
    image = Image.fromarray(stored(upright, 6))
    image.save(tmp_path / "a.jxl", lossless=True, exif=exif(6).tobytes())
    assert inspect(tmp_path / "a.jxl") == (12, 9)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.jxl")), upright)


def test_images_shrink_by_area_and_grow_by_lanczos_unless_told():
    image = Image.fromarray(noise((40, 60, 3)))
    pixels = np.asarray(image)
    smaller = cv2.resize(pixels, (30, 20), interpolation=cv2.INTER_AREA)
    assert np.array_equal(resize(image, (30, 20)), smaller)
    larger = np.asarray(image.resize((61, 20), Image.Resampling.LANCZOS))
    assert np.array_equal(resize(image, (61, 20)), larger)
    assert np.array_equal(resize(image, (60, 40)), pixels)


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("nearest", cv2.INTER_NEAREST_EXACT),
        ("bilinear", cv2.INTER_LINEAR),
        ("linear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
        ("cubic", cv2.INTER_CUBIC),
        ("area", cv2.INTER_AREA),
    ],
)
def test_the_interpolation_can_be_chosen(name, flag):
    pixels = noise((40, 60, 3))
    expected = cv2.resize(pixels, (31, 21), interpolation=flag)
    assert np.array_equal(resize(Image.fromarray(pixels), (31, 21), name), expected)


def test_lanczos_and_box_are_pillows():
    pixels = noise((40, 60, 3))
    lanczos = np.asarray(Image.fromarray(pixels).resize((31, 21), Image.Resampling.LANCZOS))
    assert np.array_equal(resize(Image.fromarray(pixels), (31, 21), "lanczos"), lanczos)
    means = pixels.reshape(20, 2, 30, 2, 3).mean((1, 3))
    assert differs_by(resize(Image.fromarray(pixels), (30, 20), "box"), means) <= 1


def test_pixels_and_alpha_are_cropped_then_mirrored(tmp_path):
    pixels = noise((4, 6, 4))
    pixels[..., 3] |= 0xF0
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    whole = np.asarray(load_image(path))
    plain, mirrored = (Geometry((6, 4), (2, 1), (3, 2), flip) for flip in (False, True))
    assert np.array_equal(load_pixels(path, plain), whole[1:3, 2:5])
    rgb, alpha = load_pixels_and_alpha(path, mirrored)
    assert np.array_equal(rgb, whole[1:3, 2:5][:, ::-1])
    assert np.array_equal(alpha, pixels[1:3, 2:5, 3][:, ::-1])


def test_alpha_is_resized_like_the_pixels(tmp_path):
    pixels = noise((40, 60, 4))
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    smaller, larger = (Geometry(size, (0, 0), size) for size in ((30, 20), (90, 60)))
    means = pixels[..., 3].reshape(20, 2, 30, 2).mean((1, 3))
    assert differs_by(load_pixels_and_alpha(path, smaller)[1], means) <= 0.5
    nearest = load_pixels_and_alpha(path, larger, interpolation="nearest")[1]
    assert set(np.unique(nearest)) <= set(np.unique(pixels[..., 3]))
    photo().save(path)
    assert load_pixels_and_alpha(path, smaller)[1] is None


def test_colours_are_shifted_after_resizing(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4), RED).save(path)
    pixels = load_pixels(path, Geometry((2, 2), (0, 0), (2, 2)), colour=ColourShift(hue=60))
    assert pixels.tolist() == [[[*GREEN]] * 2] * 2


def test_an_image_that_changed_its_size_since_the_scan_is_refused(tmp_path):
    photo((3, 2)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="was 9x9 at the start of the run and is 3x2 now; start again"):
        load_pixels(tmp_path / "a.png", Geometry((3, 2), (0, 0), (3, 2)), size=(9, 9))


def test_a_conditioning_image_is_cut_exactly_as_its_picture(tmp_path):
    pixels = noise((40, 60, 3))
    twice = pixels.repeat(2, 0).repeat(2, 1)
    (tmp_path / "hints").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(twice).save(tmp_path / "hints" / "a.png")
    geometry = Geometry((60, 40), (7, 3), (32, 24), flip=True)
    hint = load_hint(tmp_path / "hints" / "a.png", geometry, image=tmp_path / "a.png", image_size=(60, 40))
    assert np.array_equal(hint, load_pixels(tmp_path / "a.png", geometry))
    assert np.array_equal(hint, pixels[3:27, 7:39][:, ::-1])


def test_a_conditioning_image_of_another_shape_is_refused(tmp_path):
    check_hint((1000, 500), (201, 100), "hints/a.png", "a.png")
    photo((60, 41)).save(tmp_path / "a.png")
    message = "a.png: is 60x41, but the image it belongs to, b.jpg, is 600x400; give both the same aspect"
    geometry = Geometry((60, 40), (0, 0), (32, 24))
    with pytest.raises(UserError, match=message):
        load_hint(tmp_path / "a.png", geometry, image="b.jpg", image_size=(600, 400))
