"""Settings that none of the images or captions makes use of."""

import pytest

from library.data.summary import warning_lines


@pytest.mark.parametrize(
    ("setting", "value", "caption"),
    [
        ("keep_tokens_separator", "|||", "a ||| b"),
        ("secondary_separator", ";;;", "a;;;b, c"),
    ],
)
def test_a_separator_that_no_caption_has_is_a_warning(save_image, scan, tmp_path, setting, value, caption):
    save_image("train/1_x/a.png", caption="a, b")
    save_image("train/2_y/b.png", caption="c")
    folders = f"{tmp_path}/train/1_x, {tmp_path}/train/2_y"
    assert warning_lines(scan(**{setting: value})) == [
        f"{folders}: {setting} has no effect: '{value}' is in no caption"
    ]
    save_image("train/2_y/c.png", caption=caption)
    assert warning_lines(scan(**{setting: value}, resolution=["64", "128"])) == []


def test_the_secondary_separator_may_be_in_what_is_put_around_captions(save_image, scan):
    save_image("train/1_x/a.png", caption="a, b")
    assert warning_lines(scan(secondary_separator=";", caption_suffix="c; d")) == []


def test_face_crops_need_faces_in_the_file_names(save_image, scan, tmp_path):
    save_image("train/1_x/a.png", caption="a")
    assert warning_lines(scan(face_crop_aug_range=(2.0, 4.0))) == [
        f"{tmp_path}/train/1_x: face_crop_aug_range has no effect: no file name ends in a face, such as"
        " ..._0200_0150_0064_0064"
    ]
    save_image("train/1_x/b_0032_0032_0016_0016.png", caption="a")
    assert warning_lines(scan(face_crop_aug_range=(2.0, 4.0))) == []
