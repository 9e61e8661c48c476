"""Masks of what is painted anew: they belong to their images, and say so where they cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import LATENTS

from library.data.batch import Needs
from library.data.builder import BatchBuilder, SampleDraws
from library.data.loader import make_loader
from library.data.plan import Course
from library.data.summary import warning_lines
from library.problems import UserError


def draw(epoch, sample, shape):
    return SampleDraws(torch.zeros(shape), 0.5, torch.zeros(shape))


def tokenize(captions):
    return (torch.zeros(len(captions), 1, 77, dtype=torch.int64),)


def load(data, *, epochs=1, workers=0, processes=1, rank=0, seed=5, needs=Needs(holes=True)):  # noqa: B008
    settings = {"latent_space": LATENTS, "needs": needs, "processes": processes, "rank": rank}
    builder = BatchBuilder(data, tokenize, draw, seed, **settings)
    course = Course(data.batches_per_epoch(processes))
    positions = course.positions(0, course.steps_per_epoch * epochs)
    return list(make_loader(builder, positions, workers=workers))


def half_white(size=(64, 64)) -> Image.Image:
    """White above."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0], size[1] // 2))
    return mask


@pytest.fixture
def masked(save_image, scan, tmp_path: Path):
    """Three pictures and the folder of their masks; masked(...) scans them."""
    (tmp_path / "masks").mkdir()
    for name, size in (("a", (64, 64)), ("b", (96, 64)), ("c", (64, 150))):
        save_image(f"train/1_x/{name}.png", size)
        half_white(size).save(tmp_path / "masks" / f"{name}.webp", lossless=True)
    return lambda **options: scan(inpainting_masks=tmp_path / "masks", **options)


def test_a_mask_is_cropped_and_mirrored_as_its_picture(masked, tmp_path: Path) -> None:
    for path in (tmp_path / "masks").iterdir():  # the picture itself, in black and white, is its mask
        noise = np.random.default_rng(len(path.name)).random(Image.open(path).size[::-1]) > 0.5
        image = Image.fromarray(noise.astype(np.uint8) * 255)
        image.save(path, lossless=True)
        image.convert("RGB").save(tmp_path / "train" / "1_x" / f"{path.stem}.png")
    options = {"random_crop": True, "flip_aug": True, "resize_interpolation": "nearest"}
    for batch in load(masked(**options), epochs=4):
        assert torch.equal(batch.holes > 0, batch.pixels[:, :1] > 0)


def test_drawn_masks_depend_on_seed_epoch_and_sample_alone(save_image, scan) -> None:
    for name in "abc":
        save_image(f"train/1_x/{name}.png")
    data = scan(train_batch_size=2)
    plain = load(data, epochs=2)
    holes = {
        (batch.position.epoch, name): hole.numpy().tobytes()
        for batch in plain
        for name, hole in zip(batch.names, batch.holes, strict=True)
    }
    assert len(set(holes.values())) == 6
    again = load(data, epochs=2, workers=2)
    assert all(torch.equal(one.holes, other.holes) for one, other in zip(plain, again, strict=True))
    shares = [load(scan(train_batch_size=1), epochs=2, processes=2, rank=rank) for rank in (0, 1)]
    for share in shares:
        for batch in share:
            for name, hole in zip(batch.names, batch.holes, strict=True):
                assert hole.numpy().tobytes() == holes[batch.position.epoch, name]
    assert not torch.equal(load(data, seed=6)[0].holes, plain[0].holes)
    assert load(data, needs=Needs())[0].holes is None


def test_colours_under_transparent_places_are_what_is_learned(scan, tmp_path: Path) -> None:
    folder = tmp_path / "train" / "1_x"
    folder.mkdir(parents=True)
    pixels = np.full((64, 64, 4), 100, np.uint8)
    pixels[..., 3] = 255
    pixels[:32, :, 3] = 0
    Image.fromarray(pixels).save(folder / "a.png")
    (plain,), (anew,) = load(scan()), load(scan(inpainting_masks="alpha"))
    assert plain.pixels[0, 0, 0, 0] == 1  # on white
    torch.testing.assert_close(anew.pixels, torch.full((1, 3, 64, 64), 100 / 127.5 - 1))
    assert anew.holes[0, 0, :, 0].tolist() == [1.0] * 32 + [0.0] * 32


def complaints(scan, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        scan(**options)
    return [str(problem) for problem in caught.value.problems]


def test_masks_that_cannot_be_used_are_one_line_each(masked, save_image, scan, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    save_image("train/1_x/d.png")
    assert complaints(masked) == [
        f"{folder}: there is no mask for 1 of 4 images: d.png; add images of the same names, or remove those "
        "without one"
    ]
    half_white((64, 32)).save(folder / "d.png")
    Image.new("L", (64, 64)).save(folder / "a.webp")
    (folder / "b.webp").write_bytes(b"")
    found = complaints(masked)
    assert (
        found[0]
        == f"{folder}/a.webp: marks nothing: no part of the mask is white; paint white what is to be anew"
    )
    assert found[1].startswith(f"{folder}/b.webp: is empty (0 bytes)")
    assert found[2].startswith(f"{folder}/d.png: is 64x32, but the image it belongs to,") and len(found) == 3
    half_white().save(folder / "a.png")
    assert complaints(masked)[0].startswith(f"{folder}: 1 masks are there twice: a.png or a.webp")
    assert complaints(scan, inpainting_masks=tmp_path / "rnadom")[0].startswith(
        f"inpainting_masks {tmp_path}/rnadom: there is no such folder"
    )
    opaque = complaints(scan, inpainting_masks="alpha")
    assert len(opaque) == 4 and opaque[0].startswith(f"{tmp_path}/train/1_x/a.png: has no transparent part")
    assert "contradicts alpha_mask" in complaints(scan, inpainting_masks="alpha", alpha_mask=True)[0]


def test_spare_masks_are_noted_and_regularization_images_need_none(
    masked, save_image, tmp_path: Path
) -> None:
    half_white().save(tmp_path / "masks" / "z.png")
    save_image("reg/1_y/r.png")
    data = masked(reg_data_dir=tmp_path / "reg")
    assert f"{tmp_path}/masks: 1 conditioning images belong to no image: z.png" in warning_lines(data)
    assert {record.image.name: record.holes and record.holes.name for record in data.records} == {
        "a.png": "a.webp",
        "b.png": "b.webp",
        "c.png": "c.webp",
        "r.png": None,
    }


def test_the_index_looks_at_new_masks(masked, tmp_path: Path) -> None:
    import os

    for path in tmp_path.rglob("*.*"):
        os.utime(path, (1, 1))
    masked(cache_info=True)
    mask = tmp_path / "masks" / "a.webp"
    Image.new("L", (64, 64)).save(mask)
    os.utime(mask, (2, 2))
    assert "marks nothing" in complaints(masked, cache_info=True)[0]
