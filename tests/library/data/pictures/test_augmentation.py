import random

import numpy as np
import pytest

from library.data.pictures.augmentation import (
    ColourShift,
    apply_colour_shift,
    draw_colour_shift,
    draw_face_crop,
    face_of,
)


def pixels(*colours):
    return np.array([colours], np.uint8)


def test_a_third_of_the_pictures_is_changed_half_of_them_in_hue():
    rng = random.Random(0)
    drawn = [draw_colour_shift(rng) for _ in range(20_000)]
    hues = [shift.hue for shift in drawn if shift and shift.hue is not None]
    gammas = [shift.gamma for shift in drawn if shift and shift.gamma is not None]
    assert sum(shift is not None for shift in drawn) == len(hues) + len(gammas)
    assert abs(len(hues) / 20_000 - 0.165) < 0.01
    assert abs(len(gammas) / 20_000 - 0.165) < 0.01
    assert -8 <= min(hues) < -7.9 < 7.9 < max(hues) <= 8
    assert 0.95 <= min(gammas) < 0.951 < 1.049 < max(gammas) <= 1.05


def test_the_draw_depends_on_the_generator_alone():
    assert [draw_colour_shift(random.Random(seed)) for seed in range(50)] == [
        draw_colour_shift(random.Random(seed)) for seed in range(50)
    ]


def test_red_turns_to_yellow_not_to_magenta():
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    turned = apply_colour_shift(pixels(red, green, blue), ColourShift(hue=8))  # 16 degrees of 60
    assert turned[0].tolist() == [[255, 68, 0], [0, 255, 68], [68, 0, 255]]
    back = apply_colour_shift(pixels(red, green, blue), ColourShift(hue=-8))
    assert back[0].tolist() == [[255, 0, 68], [68, 255, 0], [0, 68, 255]]


def test_hue_leaves_greys_alone_and_zero_changes_nothing():
    greys = pixels((0, 0, 0), (9, 9, 9), (255, 255, 255))
    assert np.array_equal(apply_colour_shift(greys, ColourShift(hue=5)), greys)
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert np.abs(apply_colour_shift(colours, ColourShift(hue=0)).astype(int) - colours).max() <= 1


def test_gamma_is_a_power_of_the_values_themselves():
    values = np.arange(256)
    greys = pixels(*((value,) * 3 for value in values))
    for gamma in (0.95, 1.05):
        expected = [min(255, int(value**gamma + 0.5)) for value in range(256)]
        assert apply_colour_shift(greys, ColourShift(gamma=gamma))[0, :, 1].tolist() == expected


def test_no_shift_changes_nothing():
    colours = pixels((1, 2, 3))
    assert apply_colour_shift(colours, None) is colours
    assert np.array_equal(apply_colour_shift(colours, ColourShift()), colours)


@pytest.mark.parametrize(
    ("name", "face"),
    [
        ("a_0120_0080_0040_0050.png", (120, 80, 40, 50)),
        ("a_b_01_120_80_40_50.jpg", (120, 80, 40, 50)),
        ("120_80_40_50.png", None),
        ("a_120_80_40.png", None),
        ("a_120_80_40_x.png", None),
        ("a_120_80_0_50.png", None),
        ("photo.png", None),
    ],
)
def test_the_face_is_in_the_last_four_numbers_of_the_name(name, face):
    assert face_of(f"folder/{name}") == face


def crop(face, factor, *, size=(1000, 800), bucket=(256, 256)):
    return draw_face_crop(size, face, bucket, (factor, factor), random.Random(0))


def test_the_face_is_as_large_as_the_bucket_divided_by_the_factor():
    assert crop((500, 400, 100, 80), 4) == ((640, 512), (192, 128))  # 64 pixels, in the middle


def test_nothing_is_enlarged_for_a_face():
    assert crop((500, 400, 50, 50), 2) == ((1000, 800), (372, 272))


def test_the_image_always_covers_the_bucket():
    assert crop((500, 400, 100, 80), 20) == ((320, 256), (32, 0))
    assert crop((50, 40, 10, 10), 20, size=(100, 80)) == ((320, 256), (32, 0))


def test_the_crop_stays_inside_the_image():
    assert crop((10, 10, 100, 80), 4) == ((640, 512), (0, 0))
    assert crop((990, 790, 100, 80), 4) == ((640, 512), (384, 256))


def test_the_factor_is_drawn_from_its_range():
    rng = random.Random(0)
    sizes = [
        draw_face_crop((2000, 2000), (1000, 1000, 400, 400), (256, 256), (1.0, 4.0), rng)[0]
        for _ in range(2000)
    ]
    faces = np.array(sizes)[:, 0] * 400 / 2000
    assert faces.min() >= 63
    assert faces.max() <= 257
    assert abs((256 / faces).mean() - 2.5) < 0.1


def test_with_random_crop_the_face_is_anywhere_in_it():
    face, rng = (1000, 900, 200, 100), random.Random(0)
    crops = [
        draw_face_crop((2000, 1800), face, (512, 384), (2.0, 4.0), rng, random_crop=True) for _ in range(500)
    ]
    for (width, height), (left, top) in crops:
        scale = width / 2000
        assert left - 1 <= 900 * scale and 1100 * scale <= left + 512 + 1
        assert top - 1 <= 850 * scale and 950 * scale <= top + 384 + 1
        assert 0 <= left <= width - 512 and 0 <= top <= height - 384
    lefts = [left - 1000 * size[0] / 2000 for size, (left, _) in crops]
    assert min(lefts) < -400 and max(lefts) > -120  # the face at the right, and at the left


def test_a_face_larger_than_the_crop_is_in_the_middle_also_with_random_crop():
    face = (500, 500, 900, 900)
    result = draw_face_crop((1000, 1000), face, (256, 128), (0.2, 0.2), random.Random(0), random_crop=True)
    assert result == ((711, 711), (228, 292))
