"""Of an animation or a file of several pages the first picture is trained; a line for each folder says so."""

import numpy as np
import pytest
from odd_files import odd_files
from picture_files import encoded, photo
from PIL import Image

from library.data.pictures.images import has_more_frames, load_image
from library.data.pictures.integrity import look_at
from library.data.summary import warning_lines

FIRST, SECOND = photo((64, 48), 1), photo((64, 48), 2)


def several(kind, **options):
    return encoded(FIRST, kind, save_all=True, append_images=[SECOND, FIRST], **options)


ANIMATED = {
    "apng": several("PNG"),
    "apng with its own first": several("PNG", default_image=True),
    "webp": several("WEBP", lossless=True),
    "gif": several("GIF"),
    "avif": several("AVIF"),
    "tiff": several("TIFF"),
}
SINGLE = {
    "png": encoded(FIRST, "PNG"),
    "webp": encoded(FIRST, "WEBP", exif=b"Exif\0\0II*\0"),
    "gif": encoded(FIRST, "GIF"),
    "avif": encoded(FIRST, "AVIF"),
    "tiff": encoded(FIRST, "TIFF"),
    "jpeg with a depth map": several("MPO"),
    "jpeg": encoded(FIRST, "JPEG"),
}


@pytest.mark.parametrize("content", ANIMATED.values(), ids=ANIMATED)
def test_the_first_frame_is_used_and_the_others_are_noticed(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert look_at(path) == ((64, 48), True)
    difference = np.asarray(load_image(path), int) - np.asarray(FIRST, int)
    assert abs(difference).mean() < 12  # palettes and lossy formats


@pytest.mark.parametrize("content", SINGLE.values(), ids=SINGLE)
def test_a_single_picture_is_none(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert look_at(tmp_path / "a.png") == ((64, 48), False)


def test_headers_say_what_decoders_say(tmp_path):
    for name, content in odd_files(140, seed=5):
        (tmp_path / name).write_bytes(content)
        assert look_at(tmp_path / name).has_more_frames == has_more_frames(tmp_path / name), name


@pytest.mark.parametrize("cache_info", [False, True])
def test_each_folder_has_one_line_with_the_count(save_image, scan, tmp_path, monkeypatch, cache_info):
    monkeypatch.setattr("library.data.scan.index.TICK", 0)
    folder = save_image("train/1_x/a.png").parent
    save_image("train/1_y/a.png")
    for name in ("b.png", "c.webp"):
        (folder / name).write_bytes(ANIMATED["apng"])
    lines = [f"{folder}: 2 images have several frames or pages, of which the first is trained: b.png, c.webp"]
    for _ in range(2):  # the second scan with what the index knows
        found = warning_lines(scan(cache_info=cache_info))
        assert [line for line in found if "frames" in line] == lines


def test_an_animation_is_cached_and_trained_as_its_first_frame(save_image, scan, tmp_path):
    path = save_image("train/1_x/a.png")
    path.write_bytes(ANIMATED["webp"])
    (record,) = scan().records
    image = load_image(record.image)
    assert record.size == image.size and np.array_equal(np.asarray(image), np.asarray(FIRST))
    assert Image.open(path).n_frames == 3
