"""What a task may need in its batches: pictures beside cached latents, conditioning images as hints."""

import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import LATENTS

from library.data.batch import Needs
from library.data.builder import BatchBuilder, SampleDraws
from library.data.loader import make_loader
from library.data.plan import Course
from library.problems import UserError


def draw(epoch, sample, shape):
    return SampleDraws(torch.full(shape, float(sample)), 0.5, torch.zeros(shape))


def tokenize(captions):
    return (torch.zeros(len(captions), 1, 77, dtype=torch.int64),)


def builder(data, **settings):
    return BatchBuilder(data, tokenize, draw, 5, **({"latent_space": LATENTS} | settings))


def load(data, last=12, workers=0, **settings):
    course = Course(data.batches_per_epoch(1))
    return list(make_loader(builder(data, **settings), course.positions(0, last), workers=workers))


def bytes_of(tensor, low):
    """Pixels from low..1 as they were before: 0..255."""
    scaled = (tensor - low) * (255 / (1 - low))
    assert torch.allclose(scaled, scaled.round(), atol=1e-3)
    return scaled.round().byte()


@dataclass
class Latents:
    """A cache whose latents say whose they are. read: the keys that were asked for."""

    bad: frozenset = frozenset()
    read: list = field(default_factory=list)

    def __getitem__(self, key):
        self.read.append(key)
        return torch.full((4, 8, 8), key[0] + 0.5 * key[1])

    def mask(self, index, flip):
        return None


@pytest.fixture
def pairs(tmp_path, scan):
    """Six noisy pictures and hints with the same markings, which are twice as large where this changes
    nothing.
    """
    rng = np.random.default_rng(0)
    for folder in ("train/1_x", "hints"):
        (tmp_path / folder).mkdir(parents=True)
    sizes = [(64, 64), (96, 64), (64, 90), (150, 100), (40, 50), (200, 70)]
    for number, (width, height) in enumerate(sizes):
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train" / "1_x" / f"{number}.png")
        if number < 3:  # is not resized, so that the mean of four equal pixels is the picture's own
            pixels = pixels.repeat(2, 0).repeat(2, 1)
        Image.fromarray(pixels).save(tmp_path / "hints" / f"{number}.webp", lossless=True)

    def make(**options):
        pair = {"conditioning_data_dir": tmp_path / "hints", "masked_loss": True}
        return scan(**({"train_batch_size": 2} | pair | options))

    return make


AUGMENTATIONS = {
    "none": {},
    "flip": {"flip_aug": True},
    "crop": {"random_crop": True},
    "flip and crop": {"flip_aug": True, "random_crop": True},
    "buckets": {"enable_bucket": True, "min_bucket_reso": 32, "bucket_reso_steps": 32, "flip_aug": True},
    "interpolation": {"resize_interpolation": "nearest", "random_crop": True},
}


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_hint_is_resized_cropped_and_mirrored_exactly_as_its_picture(pairs, augmentation):
    data = pairs(**AUGMENTATIONS[augmentation])
    seen = {}
    for batch in load(data, needs=Needs(hints=True)):
        assert batch.hints.shape == batch.pixels.shape and batch.hints.dtype == torch.float32
        assert batch.hints.min() >= 0 and batch.hints.max() <= 1
        assert torch.equal(bytes_of(batch.hints, 0), bytes_of(batch.pixels, -1))
        assert batch.masks is None  # a hint is no mask
        for name, pixels in zip(batch.names, batch.pixels, strict=True):
            seen.setdefault(name, set()).add(pixels.numpy().tobytes())
    assert len(seen) == 6
    changes = augmentation not in ("none",)
    assert any(len(views) > 1 for views in seen.values()) == changes


def test_the_colours_of_a_hint_never_change(pairs):
    plain = load(pairs(), needs=Needs(hints=True))
    shifted = load(pairs(color_aug=True), needs=Needs(hints=True))
    assert all(torch.equal(a.hints, b.hints) for a, b in zip(plain, shifted, strict=True))
    assert not all(torch.equal(a.pixels, b.pixels) for a, b in zip(plain, shifted, strict=True))


def test_what_is_not_needed_is_not_read(pairs, tmp_path):
    data = pairs(alpha_mask=True)
    plain = load(data)
    assert all(batch.hints is None and batch.masks is not None for batch in plain)  # a mask, as ever
    for path in (tmp_path / "train" / "1_x").iterdir():
        path.unlink()
    batches = load(data, latents=Latents(), needs=Needs(hints=True))
    assert all(batch.pixels is None and batch.posterior is None for batch in batches)
    for batch, other in zip(batches, plain, strict=True):
        assert torch.equal(bytes_of(batch.hints, 0), bytes_of(other.pixels, -1))


def test_pixels_beside_cached_latents_are_those_of_the_same_view(pairs):
    data = pairs(flip_aug=True)
    plain = load(data, needs=Needs(hints=True))
    both = load(data, latents=Latents(), needs=Needs(pixels=True, hints=True))
    only_latents = load(data, latents=Latents(), needs=Needs(hints=True))
    seen = set()
    for batch, other, cached in zip(both, plain, only_latents, strict=True):
        assert torch.equal(batch.pixels, other.pixels) and torch.equal(batch.hints, other.hints)
        assert torch.equal(batch.latents, cached.latents) and cached.pixels is None
        assert batch.posterior is None  # the latents are sampled already
        seen |= {float(latent[0, 0, 0]) % 1 for latent in batch.latents}
    assert seen == {0.0, 0.5}


@pytest.mark.parametrize("latents", [None, Latents()])
@pytest.mark.parametrize("workers", [1, 2])
def test_needs_do_not_depend_on_workers(pairs, workers, latents):
    needs = Needs(pixels=True, hints=True)
    data = pairs(flip_aug=True, random_crop=latents is None)
    alone = load(data, needs=needs, latents=latents)
    together = load(data, needs=needs, latents=latents, workers=workers)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.hints, other.hints)


@pytest.mark.parametrize("skips", [False, True])
def test_a_hint_that_became_unreadable_is_a_bad_image(pairs, tmp_path, capsys, skips):
    data = pairs(on_bad_image="skip" if skips else "stop")
    path = tmp_path / "hints" / "3.webp"
    path.write_bytes(path.read_bytes()[:50])
    if not skips:
        with pytest.raises(UserError) as caught:
            load(data, needs=Needs(hints=True))
        assert caught.value.problems[0].where == str(path)
        return
    batches = load(data, needs=Needs(hints=True))
    weights = {name: w for b in batches for name, w in zip(b.names, b.weights.tolist(), strict=True)}
    assert {name for name, weight in weights.items() if weight == 0} == {"3.png"}
    blank = [(b, i) for b in batches for i, name in enumerate(b.names) if name == "3.png"]
    assert all((b.hints[i] == 0).all() and (b.pixels[i] == -1).all() for b, i in blank)
    assert capsys.readouterr().err.count("3.webp: ") == 1


def test_hints_are_asked_for_only_where_every_picture_has_one(save_image, scan):
    save_image("train/1_x/a.png")
    with pytest.raises(AssertionError):
        builder(scan(), needs=Needs(hints=True))


def test_hints_move_with_their_batch(pairs):
    (batch, *_) = load(pairs(), needs=Needs(hints=True))
    assert batch.to("meta").hints.device.type == "meta"
    assert torch.equal(pickle.loads(pickle.dumps(batch)).hints, batch.hints)


def test_latents_of_another_family_have_its_channels_and_its_scale(pairs):
    space = replace(LATENTS, channels=16, pixels_per_latent=16, pixel_multiple=16)
    for batch in load(pairs(), latent_space=space):
        assert batch.noise.shape == batch.posterior.shape == (len(batch.names), 16, 4, 4)
        assert batch.masks.shape == (len(batch.names), 1, 4, 4)


def test_templates_take_the_place_of_captions_in_batches(save_image, scan):
    for name in ("a", "b"):
        save_image(f"train/1_x/{name}.png", caption="a dog")
    data, needs = scan(), Needs(templates=("a photo of cat", "a cat", "one cat"))
    drawn = {caption for batch in load(data, 30, needs=needs) for caption in batch.captions}
    assert drawn == set(needs.templates)
    fixed = load(data, needs=needs, is_fixed=True)
    assert {caption for batch in fixed for caption in batch.captions} == {"a photo of cat"}
