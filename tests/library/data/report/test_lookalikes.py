"""Pictures that are there more than once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from library.data.report import lookalikes
from library.data.report.inspection import inspect_pictures
from library.data.report.lookalikes import (
    COLOUR_DISTANCE,
    HASH_DISTANCE,
    Group,
    Likeness,
    difference_hash,
    find_groups,
    likeness,
)


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


def test_more_pictures_than_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalikes, "CELLS", 2500 * 1000)
    rng = np.random.default_rng(0)
    bits = rng.random((2500, 256)) > 0.5
    colours = rng.uniform(0, 255, (2500, 192)).astype(np.float32)
    pictures = [Likeness(index.to_bytes(2, "big"), bits[index], colours[index]) for index in range(2500)]
    pictures[2400], pictures[1100] = pictures[3], pictures[3]
    pictures[2000] = Likeness(b"other", pictures[1900].bits, pictures[1900].colours)
    assert find_groups(pictures) == [Group((3, 1100, 2400), True), Group((1900, 2000), False)]


def film(frames: int, rng: np.random.Generator, *, changes: int = 4) -> list[Likeness]:
    """Pictures of which each differs from the one before in a few bits."""
    bits, colours = rng.random(256) > 0.5, rng.uniform(0, 255, 192).astype(np.float32)
    found = []
    for _ in range(frames):
        bits = bits.copy()
        bits[rng.choice(256, changes, replace=False)] ^= True
        found.append(Likeness(b"", bits, colours))
    return found


def linked(pictures: list[Likeness]) -> list[tuple[int, ...]]:
    """Groups of more than one, found by walking from each picture to those like it."""
    bits = np.stack([picture.bits for picture in pictures]).astype(int)
    colours = np.stack([picture.colours for picture in pictures])
    ones = bits.sum(1)
    differing = (bits[:, None] != bits).sum(2)
    apart = ((colours[:, None] - colours) ** 2).mean(2)
    alike = (differing <= HASH_DISTANCE * (ones[:, None] + ones)) & (apart <= COLOUR_DISTANCE**2)
    left, found = set(range(len(pictures))), []
    while left:
        group, edge = set(), {min(left)}
        while edge:
            group |= edge
            edge = set(np.flatnonzero(alike[sorted(edge)].any(0)).tolist()) - group
        left -= group
        found.append(tuple(sorted(group)))
    return [group for group in found if len(group) > 1]


def test_groups_are_all_that_is_linked_in_whatever_order_it_comes() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        films = [film(int(rng.integers(1, 30)), rng, changes=int(rng.integers(1, 60))) for _ in range(6)]
        pictures = [picture for pictures in films for picture in pictures]
        mixed = [pictures[place] for place in rng.permutation(len(pictures))]
        assert [group.members for group in find_groups(mixed)] == linked(mixed), seed


def test_a_long_film_is_joined_in_a_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []
    lowest = lookalikes._lowest
    monkeypatch.setattr(lookalikes, "_lowest", lambda *found: rounds.append(found) or lowest(*found))
    frames = film(600, np.random.default_rng(0), changes=9)
    assert [group.members for group in find_groups(frames)] == [tuple(range(600))]
    assert len(rounds) < 10


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


def clear_corner(mode: str = "RGBA") -> Image.Image:
    image = photograph(3).convert(mode)
    image.putalpha(255)
    image.paste(0, (0, 0, 9, 9))
    return image


def test_an_inspection_tells_real_transparency_from_an_opaque_alpha_channel(tmp_path: Path) -> None:
    clear_corner().save(tmp_path / "clear.png")
    clear_corner("L").save(tmp_path / "grey.webp", lossless=True)
    opaque = photograph(4)
    opaque.save(tmp_path / "none.png")
    opaque.putalpha(255)
    opaque.save(tmp_path / "opaque.png")
    palette = Image.new("P", (40, 30))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.paste(1, (0, 0, 20, 30))
    palette.save(tmp_path / "palette.png", transparency=1)
    palette.save(tmp_path / "unused colour.png", transparency=2)
    found = inspect_pictures(sorted(tmp_path.iterdir()))
    assert [path.name for path in found.transparent] == ["clear.png", "grey.webp", "palette.png"]
    assert found.animated == () and found.problems == ()


def test_an_inspection_finds_what_has_more_than_one_frame(tmp_path: Path) -> None:
    first, second = photograph(1), photograph(2)
    for name in ("film.png", "film.webp", "film.gif"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
    (tmp_path / "named wrongly.png").write_bytes((tmp_path / "film.gif").read_bytes())
    for name in ("still.png", "still.webp", "still.gif", "still.jpg"):
        second.save(tmp_path / name)
    # A camera's JPEG with a preview behind the picture is one picture.
    first.save(tmp_path / "preview.jpg", "MPO", save_all=True, append_images=[second])
    found = inspect_pictures(sorted(tmp_path.iterdir()))
    names = ["film.gif", "film.png", "film.webp", "named wrongly.png"]
    assert [path.name for path in found.animated] == names
    assert found.transparent == () and found.problems == ()


def test_damage_behind_the_first_frame_is_no_problem(tmp_path: Path) -> None:
    frames = [photograph(seed, (60, 40)) for seed in range(3)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], duration=50)
    content = (tmp_path / "film.gif").read_bytes()
    second = [place for place in range(len(content)) if content.startswith(b"\x21\xf9\x04", place)][1]
    for length in range(second, second + 12):
        (tmp_path / "film.gif").write_bytes(content[:length])
        assert inspect_pictures([tmp_path / "film.gif"]).problems == (), length - second


def test_what_is_damaged_or_a_mask_counts_as_neither(tmp_path: Path) -> None:
    clear_corner().save(tmp_path / "mask.png")
    content = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "damaged.png").write_bytes(content[:1000] + bytes(300) + content[1300:])
    photograph(0).save(tmp_path / "a.png")
    found = inspect_pictures([tmp_path / "a.png", tmp_path / "damaged.png"], hints=[tmp_path / "mask.png"])
    assert len(found.problems) == 1 and found.transparent == found.animated == ()


def test_masks_may_be_alike_but_not_damaged(folder: Path) -> None:
    found = inspect_pictures([folder / "a.png"], hints=[folder / "b.png", folder / "damaged.png"])
    assert [Path(problem.where).name for problem in found.problems] == ["damaged.png"]
    assert found.alike == ()
