"""Conditioning images: found by name, checked with their images."""

import pytest

from library.data.summary import warning_lines
from library.problems import UserError


def complaints(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def scan_masked(scan, tmp_path):
    def scan_with(**options):
        return scan(masked_loss=True, conditioning_data_dir=tmp_path / "masks", **options)

    return scan_with


def hints(data):
    return {record.image.name: record.hint.name for record in data.records}


def test_each_image_has_the_conditioning_image_of_its_name_whatever_the_suffix(save_image, scan_masked):
    for name in ("1_x/a.png", "1_x/b.jpg", "2_y/c.d.webp"):
        save_image(f"train/{name}")
    for name in ("a.PNG", "b.bmp", "c.d.png"):
        save_image(f"masks/{name}")
    data = scan_masked()
    assert hints(data) == {"a.png": "a.PNG", "b.jpg": "b.bmp", "c.d.webp": "c.d.png"}


def test_without_conditioning_data_dir_there_are_none(save_image, scan):
    save_image("train/1_x/a.png")
    assert [record.hint for record in scan().records] == [None]


def test_missing_double_and_misshapen_ones_are_problems_in_one_line_of_each_kind(
    save_image, scan_masked, tmp_path
):
    for name in ("a", "b", "c", "d", "e"):
        save_image(f"train/1_x/{name}.png")
    for name in ("c.png", "c.jpg", "e.png"):
        save_image(f"masks/{name}")
    save_image("masks/d.png", (64, 48))
    masks = tmp_path / "masks"
    assert complaints(scan_masked) == [
        f"{masks}: there is no conditioning image for 2 of 5 images: a.png, b.png; add images of the same"
        " names, or remove those without one",
        f"{masks}: 1 conditioning images are there twice: c.jpg or c.png; remove all but one of each name",
        f"{masks}/d.png: is 64x48, but the image it belongs to, {tmp_path}/train/1_x/d.png, is 64x64; give"
        " both the same aspect ratio",
    ]


def test_those_of_no_image_are_counted(save_image, scan_masked, tmp_path):
    save_image("train/1_x/a.png", caption="x")
    save_image("train/2_y/b.png", caption="x")
    for name in ("a.png", "b.png", "c.png", "e.png"):
        save_image(f"masks/{name}")
    (tmp_path / "masks" / "._d.png").touch()
    data = scan_masked()
    assert warning_lines(data) == [
        f"{tmp_path}/masks: 2 conditioning images belong to no image: c.png, e.png"
    ]


def test_a_bad_one_can_be_skipped_with_its_image(save_image, scan_masked, tmp_path):
    for name in ("train/1_x/a", "train/1_x/b", "masks/a"):
        save_image(f"{name}.png")
    (tmp_path / "masks" / "b.png").touch()
    (message,) = complaints(scan_masked)
    assert message.startswith(f"{tmp_path}/masks/b.png: is empty (0 bytes)")
    data = scan_masked(on_bad_image="skip")
    assert hints(data) == {"a.png": "a.png"}
    assert [bad.where for bad in data.bad_images] == [f"{tmp_path}/masks/b.png"]


def test_a_folder_that_is_not_there_is_a_problem(save_image, scan_masked, tmp_path):
    save_image("train/1_x/a.png")
    (folder,) = complaints(scan_masked)
    assert folder.startswith(f"conditioning_data_dir {tmp_path}/masks: there is no such folder")
