import json
import random
from pathlib import Path

import pytest

from library.data.buckets import (
    Fit,
    aspect_error,
    bucket_resolutions,
    centre_crop,
    cover,
    fit_to_list,
    fit_without_enlarging,
    letterbox,
    random_crop,
)

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "buckets.json").read_text())


@pytest.mark.parametrize("name", VECTORS["bucket_resolutions"])
def test_bucket_lists_equal_the_published_ones(name):
    size, *limits = name.split()
    width, height = map(int, size.split("x"))
    shortest, longest, step = (int("".join(filter(str.isdigit, limit))) for limit in limits)
    buckets = bucket_resolutions((width, height), shortest=shortest, longest=longest, step=step)
    assert [list(bucket) for bucket in buckets] == VECTORS["bucket_resolutions"][name]


@pytest.mark.parametrize("name", VECTORS["bucket_selection"])
def test_bucket_choice_resize_and_letterbox_equal_the_published_ones(name):
    side, mode, size_text = name.split()
    side, size = int(side), tuple(map(int, size_text.split("x")))
    expected = VECTORS["bucket_selection"][name]
    if mode == "no_upscale":
        fit = fit_without_enlarging(size, area=side * side, step=64)
    else:
        limits = {512: (256, 1024), 1024: (512, 2048)}[side]
        buckets = bucket_resolutions((side, side), shortest=limits[0], longest=limits[1], step=64)
        fit = fit_to_list(size, buckets)
    assert list(fit.bucket) == expected["bucket"]
    assert list(fit.resized) == expected["resized"]
    assert list(letterbox(fit.bucket, size)) == expected["crop_ltrb"]
    assert round(aspect_error(fit.bucket, size), 6) == expected["ar_error"]


def test_limits_are_rounded_outwards_to_multiples_of_the_step():
    exact = bucket_resolutions((512, 512), shortest=256, longest=1024, step=64)
    assert bucket_resolutions((512, 512), shortest=300, longest=1000, step=64) == exact


@pytest.mark.parametrize("size", [(1, 1), (63, 64), (5000, 40), (40, 5000), (30000, 7), (64, 64)])
def test_no_upscale_never_makes_an_empty_bucket_nor_one_the_image_does_not_cover(size):
    fit = fit_without_enlarging(size, area=512 * 512, step=64)
    assert min(fit.bucket) >= 64
    assert fit.resized[0] >= fit.bucket[0] and fit.resized[1] >= fit.bucket[1]


def test_cover_touches_one_side_and_exceeds_the_other():
    assert cover((640, 480), (64, 64)) == (85, 64)
    assert cover((480, 640), (64, 64)) == (64, 85)


def test_crops_are_centred_or_anywhere_inside():
    fit = Fit(bucket=(576, 448), resized=(597, 448))
    assert centre_crop(fit) == (10, 0)
    crops = {random_crop(fit, random.Random(seed)) for seed in range(500)}
    assert crops == {(left, 0) for left in range(22)}
