"""Pictures that are there more than once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from library.data.report.inspection import inspect_pictures
from library.data.report.lookalikes import Group, Likeness, difference_hash, find_groups, likeness


def photograph(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Coarse shapes with finer ones on them."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            ),
            np.float32,
        )
        for side in (4, 16, 64)
    ]
    mixed = sum(share * layer for share, layer in zip((0.55, 0.3, 0.15), layers, strict=True))
    return Image.fromarray(mixed.astype(np.uint8))


def drawing(seed: int) -> Image.Image:
    """A few black lines on white."""
    rng = random.Random(seed)
    image = Image.new("RGB", (320, 320), "white")
    points = [(rng.randrange(320), rng.randrange(320)) for _ in range(4)]
    ImageDraw.Draw(image).line(points, "black", 3)
    return image


def groups(*images: Image.Image) -> list[tuple[int, ...]]:
    found = find_groups([_likeness(image, index) for index, image in enumerate(images)])
    return [group.members for group in found]


def _likeness(image: Image.Image, index: int) -> Likeness:
    path = Path(__file__)  # any file: the content is set below
    seen = likeness(path, image)
    return Likeness(bytes([index]), seen.bits, seen.colours)


def save_jpeg(image: Image.Image, folder: Path, quality: int) -> Image.Image:
    image.save(folder / "x.jpg", quality=quality)
    return Image.open(folder / "x.jpg").convert("RGB")


def test_copies_that_were_changed_a_little_look_the_same(tmp_path: Path) -> None:
    for seed in range(6):
        photo = photograph(seed)
        copies = [
            save_jpeg(photo, tmp_path, 30),
            photo.resize((150, 111)),
            ImageEnhance.Brightness(photo).enhance(1.1),
            photo.crop((3, 2, 317, 238)),
        ]
        assert groups(photo, *copies) == [(0, 1, 2, 3, 4)], seed


def test_different_pictures_do_not(tmp_path: Path) -> None:
    assert groups(*map(photograph, range(40))) == []


def test_different_drawings_do_not_though_nearly_all_of_them_is_white() -> None:
    assert groups(*map(drawing, range(40))) == []
    assert groups(drawing(1), drawing(2), drawing(1).resize((200, 200))) == [(0, 2)]


def test_one_shape_in_two_colours_is_two_pictures() -> None:
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    assert groups(red, blue) == []
    assert groups(red, blue, red) == [(0, 2)]


def test_what_is_alike_through_others_is_one_group() -> None:
    steps = [photograph(0).crop((step, 0, 320, 240)) for step in range(0, 28, 4)]
    assert groups(steps[0], steps[-1]) == []
    assert groups(*reversed(steps), photograph(1)) == [tuple(range(7))]


def test_more_pictures_than_are_compared_at_once() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((2500, 256)) > 0.5
    colours = rng.uniform(0, 255, (2500, 192)).astype(np.float32)
    pictures = [Likeness(index.to_bytes(2, "big"), bits[index], colours[index]) for index in range(2500)]
    pictures[2400], pictures[1100] = pictures[3], pictures[3]
    pictures[2000] = Likeness(b"other", pictures[1900].bits, pictures[1900].colours)
    assert find_groups(pictures) == [Group((3, 1100, 2400), True), Group((1900, 2000), False)]


def test_no_pictures_are_no_groups() -> None:
    assert find_groups([]) == []


def test_the_hash_is_whether_fields_get_lighter() -> None:
    ramp = np.arange(17, dtype=np.uint8) * 10
    assert difference_hash(Image.fromarray(np.tile(ramp, (16, 1)))).all()
    assert not difference_hash(Image.fromarray(np.tile(ramp[::-1], (16, 1)))).any()
    step = np.zeros((16, 17), np.uint8)
    step[4, 9] = 2
    assert np.flatnonzero(difference_hash(Image.fromarray(step))).tolist() == [4 * 16 + 8]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photograph(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    photograph(1).save(tmp_path / "c.png")
    photograph(1).save(tmp_path / "d.jpg")
    damaged = bytearray((tmp_path / "c.png").read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 300] = bytes(300)
    (tmp_path / "damaged.png").write_bytes(damaged)
    return tmp_path


def test_an_inspection_decodes_everything_and_names_what_is_damaged(folder: Path) -> None:
    files = sorted(folder.iterdir())
    found = inspect_pictures([*files, folder / "a.png"])
    assert [Path(problem.where).name for problem in found.problems] == ["damaged.png"]
    assert found.pictures == tuple(folder / name for name in ("a.png", "b.png", "c.png", "d.jpg"))
    assert found.alike == (Group((0, 1), True), Group((2, 3), False))


def test_masks_may_be_alike_but_not_damaged(folder: Path) -> None:
    found = inspect_pictures([folder / "a.png"], hints=[folder / "b.png", folder / "damaged.png"])
    assert [Path(problem.where).name for problem in found.problems] == ["damaged.png"]
    assert found.alike == ()
