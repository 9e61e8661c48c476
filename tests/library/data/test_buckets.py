import json
import random
from itertools import islice
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


def settings():
    """Random settings that pass the checks of dataset settings, each with an image size."""
    rng = random.Random(0)
    while True:
        step = rng.choice([8, 32, 64, 128])
        resolution = rng.randint(step, 2048), rng.randint(step, 2048)
        shortest, longest = rng.randint(1, 2048), rng.randint(1, 4096)
        lowest, highest = shortest // step * step, -(-longest // step) * step
        size = rng.choice([1, 7, rng.randint(1, 8000)]), rng.choice([1, rng.randint(1, 8000)])
        if min(resolution) >= lowest and max(resolution) <= highest:
            yield step, resolution, (shortest, longest), (max(lowest, step), highest), size


@pytest.mark.parametrize("number", range(20))
def test_every_image_has_a_bucket_of_whole_steps_within_the_limits_and_covers_it(number):
    for step, resolution, limits, (lowest, highest), size in islice(settings(), number, 4000, 20):
        buckets = bucket_resolutions(resolution, shortest=limits[0], longest=limits[1], step=step)
        fit = fit_to_list(size, buckets)
        (width, height), resized = fit.bucket, fit.resized
        assert (width % step, height % step) == (0, 0)
        assert lowest <= min(fit.bucket) and max(fit.bucket) <= highest
        assert width * height <= resolution[0] * resolution[1]
        assert resized[0] >= width and resized[1] >= height
        assert resized[0] == width or resized[1] == height


@pytest.mark.parametrize("number", range(20))
def test_without_enlarging_every_image_has_a_bucket_of_whole_steps_and_covers_it(number):
    for step, resolution, _, _, size in islice(settings(), number, 4000, 20):
        fit = fit_without_enlarging(size, area=resolution[0] * resolution[1], step=step)
        (width, height), resized = fit.bucket, fit.resized
        assert (width % step, height % step) == (0, 0)
        assert resized[0] >= width >= step and resized[1] >= height >= step
        if min(size) >= step:
            assert resized[0] <= size[0] and resized[1] <= size[1]
