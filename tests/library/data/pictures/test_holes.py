"""What an inpainting model paints anew: the random masks, and the images and alpha channels that say it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from library.data.pictures.holes import holes_from_alpha, holes_from_mask, random_holes


def test_random_holes_cover_a_tenth_to_two_thirds_of_the_picture_and_differ() -> None:
    holes = [random_holes((96, 64), random.Random(seed)) for seed in range(400)]
    assert all(one.shape == (64, 96) and one.dtype == bool for one in holes)
    shares = np.array([one.mean() for one in holes])
    assert shares.min() > 0.05 and shares.max() < 0.75 and 0.2 < shares.mean() < 0.4
    assert len({one.tobytes() for one in holes}) == 400
    again = random_holes((96, 64), random.Random(7))
    assert np.array_equal(again, holes[7])


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (64, 8), (8, 512)])
def test_small_and_thin_pictures_have_holes_too(size: tuple[int, int]) -> None:
    holes = [random_holes(size, random.Random(seed)) for seed in range(50)]
    assert all(one.shape == size[::-1] for one in holes) and sum(one.any() for one in holes) > 40


def test_every_shape_is_drawn_as_often_as_it_should_be() -> None:
    """A rectangle fills the box around it, a cloud touches many edges: told apart by how full the box is."""

    def fills_its_box(one: np.ndarray) -> bool:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        return bool(one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())

    holes = [random_holes((64, 64), random.Random(seed)) for seed in range(1000)]
    rectangles = sum(map(fills_its_box, holes)) / 1000
    assert 0.09 < rectangles < 0.16  # half of a quarter


def test_white_and_transparent_places_are_holes() -> None:
    mask = np.zeros((2, 2, 3), np.uint8)
    mask[0, 0], mask[0, 1], mask[1, 0] = 255, (0, 0, 200), 127
    assert holes_from_mask(mask).tolist() == [[True, True], [False, False]]
    assert holes_from_alpha(np.array([[0, 127], [128, 255]], np.uint8)).tolist() == [
        [True, True],
        [False, False],
    ]
