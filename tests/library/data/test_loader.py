import dataclasses
import pickle
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import LATENTS

from library.data.batch import Batch
from library.data.builder import BatchBuilder
from library.data.loader import make_loader
from library.data.plan import Course, Position
from library.data.views import make_view
from library.problems import UserError
from library.randomness import keyed_generator, keyed_random


@dataclass
class Draws:
    noise: torch.Tensor
    u: float
    posterior: torch.Tensor | None
    disturbance: torch.Tensor | None = None
    offset: tuple[torch.Tensor, torch.Tensor] | None = None


def draw(epoch, sample, shape):
    noise = torch.randn((2, *shape), generator=keyed_generator(0, "noise", epoch, sample))
    return Draws(noise[0], keyed_random(0, "u", epoch, sample).random(), noise[1])


def tokenize(captions):
    """Each caption's bytes in a row of 77, for two text encoders."""
    rows = [list(caption.encode()[:77]) + [0] * (77 - len(caption.encode())) for caption in captions]
    tokens = torch.tensor(rows).view(len(captions), 1, 77)
    return tokens, -tokens


def load(data, first=0, last=None, *, rank=0, processes=1, accumulation=1, **options):
    course = Course(data.batches_per_epoch(processes), accumulation)
    last = course.steps_per_epoch if last is None else last
    loading = {name: options.pop(name) for name in ("workers", "pin_memory") if name in options}
    settings = {
        "tokenize": tokenize,
        "draw": draw,
        "seed": 5,
        "latent_space": LATENTS,
        "rank": rank,
        "processes": processes,
    }
    return make_loader(BatchBuilder(data, **(settings | options)), course.positions(first, last), **loading)


def assert_same(one: Batch, other: Batch):
    for field in dataclasses.fields(Batch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b) and a.dtype == b.dtype, field.name
        elif field.name == "tokens":
            assert all(map(torch.equal, a, b))
        else:
            assert a == b, field.name


EVERYTHING = {
    "flip_aug": True,
    "random_crop": True,
    "color_aug": True,
    "face_crop_aug_range": (1.5, 3.0),
    "alpha_mask": True,
    "shuffle_caption": True,
    "keep_tokens": 1,
    "caption_tag_dropout_rate": 0.2,
    "caption_dropout_rate": 0.1,
    "caption_dropout_every_n_epochs": 3,
    "enable_wildcard": True,
    "token_warmup_min": 1,
    "token_warmup_step": 6.0,
}


@pytest.fixture
def photos(save_image, scan, tmp_path):
    """Five noisy pictures with alpha channels in two buckets, two with a face, every augmentation on."""
    rng = np.random.default_rng(0)
    sizes = {
        "0": (96, 64),
        "1_50_30_20_20": (90, 64),
        "2_10_40_12_16": (64, 64),
        "3": (70, 64),
        "4": (64, 72),
    }
    for name, (width, height) in sizes.items():
        caption = f"one{name}, two, {{three|drei}}, four\nzero{name}, five"
        path = save_image(f"train/1_x/{name}.png", (width, height), caption=caption)
        Image.fromarray(rng.integers(0, 255, (height, width, 4), np.uint8)).save(path)

    def make(**options):
        settings = {
            "train_batch_size": 2,
            "enable_bucket": True,
            "min_bucket_reso": 64,
            "bucket_reso_steps": 32,
            **EVERYTHING,
        }
        return scan(**(settings | options))

    return make


def test_a_batch_has_the_shapes_and_types_it_promises(photos):
    batch = next(load(photos()))
    count, _, height, width = batch.pixels.shape
    assert count == 2 and batch.pixels.dtype == torch.float32
    assert -1 <= batch.pixels.min() < -0.9 and 0.9 < batch.pixels.max() <= 1
    assert batch.latents is None
    assert batch.noise.shape == batch.posterior.shape == (2, 4, height // 8, width // 8)
    assert [tuple(tokens.shape) for tokens in batch.tokens] == [(2, 1, 77)] * 2
    assert batch.sizes.shape == (2, 6) and batch.sizes.dtype == torch.int64
    assert batch.weights.tolist() == [1, 1] and batch.weights.dtype == torch.float32
    assert batch.u.shape == (2,) and batch.u.dtype == torch.float32
    assert batch.divisor == 2
    assert len(batch.names) == len(batch.captions) == 2
    assert torch.equal(batch.tokens[0], tokenize(batch.captions)[0])


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_do_not_depend_on_the_number_of_workers(photos, workers):
    data = photos()
    alone = list(load(data, last=8, accumulation=2))
    together = list(load(data, last=8, accumulation=2, workers=workers))
    course = Course(data.batches_per_epoch(1), accumulation=2)
    assert [batch.position for batch in alone] == list(course.positions(0, 8))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def test_what_goes_to_a_worker_can_be_pickled(photos):
    builder = BatchBuilder(photos(), tokenize, draw, seed=5, latent_space=LATENTS)
    position = Position(epoch=2, batch=1, step=9, window=1, closes=True)
    copy = pickle.loads(pickle.dumps(builder))
    assert_same(copy.build(position), pickle.loads(pickle.dumps(builder.build(position))))


def test_workers_leave_the_global_generator_alone(photos):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    list(load(photos(), workers=1))
    assert torch.equal(torch.rand(1), expected)


def test_starting_late_gives_the_batches_of_the_whole_run(photos):
    data = photos()
    whole = list(load(data, last=7))
    for one, other in zip(whole[4:], load(data, 4, 7), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("enable_bucket", [False, True])
@pytest.mark.parametrize("processes", [2, 3])
def test_the_slices_of_all_ranks_joined_are_the_batch_of_one_process(photos, processes, enable_bucket):
    data = photos(train_batch_size=1, enable_bucket=enable_bucket)
    whole = list(load(photos(train_batch_size=processes, enable_bucket=enable_bucket), last=6))
    ranks = [list(load(data, last=6, rank=rank, processes=processes)) for rank in range(processes)]
    seen_padding = False
    for one, *parts in zip(whole, *ranks, strict=True):
        real = len(one.names)
        for name in ("pixels", "masks", "sizes", "noise", "u", "weights", "posterior"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined[:real], getattr(one, name)), name
        assert [caption for part in parts for caption in part.captions][:real] == one.captions
        weights = torch.cat([part.weights for part in parts])
        assert weights[real:].tolist() == [0] * (len(weights) - real)
        seen_padding |= len(weights) > real
        # What the processes' mean gradient sees: sum(loss x weight) / divisor on each, averaged.
        losses = torch.arange(len(weights)) + 1.0
        shares = zip(losses.chunk(processes), parts, strict=True)
        mean = sum((loss * part.weights).sum() / part.divisor for loss, part in shares) / processes
        assert mean == pytest.approx(float((losses[:real] * one.weights).sum() / one.divisor))
    assert seen_padding


def test_regularization_images_carry_the_prior_loss_weight(save_image, scan, tmp_path):
    save_image("train/1_x/a.png")
    save_image("reg/1_r/b.png")
    data = scan(reg_data_dir=tmp_path / "reg", prior_loss_weight=0.25, train_batch_size=2)
    (batch,) = load(data)
    assert dict(zip(batch.names, batch.weights.tolist(), strict=True)) == {"a.png": 1.0, "b.png": 0.25}
    assert batch.divisor == 2


def test_sizes_hold_the_real_crop_and_a_mirrored_image_its_mirrored_crop(save_image, scan):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 101, 3), np.uint8)
    Image.fromarray(pixels).save(save_image("train/1_x/a.png", (101, 64)))
    seen = set()
    for batch in load(scan(flip_aug=True, random_crop=True), last=30):
        height, width, top, left, target_height, target_width = batch.sizes[0].tolist()
        assert (height, width, top, target_height, target_width) == (64, 101, 0, 64, 64)
        found = ((batch.pixels[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
        upright, mirrored = pixels[:, left : left + 64], pixels[:, ::-1][:, left : left + 64]
        is_flipped = np.array_equal(found, mirrored)
        assert is_flipped or np.array_equal(found, upright)
        seen.add(is_flipped)
    assert seen == {True, False}


def test_a_sample_does_not_depend_on_the_batch_size(photos):
    def by_name(size):
        batches = load(photos(train_batch_size=size))
        return {n: (c, p) for b in batches for n, c, p in zip(b.names, b.captions, b.pixels, strict=True)}

    one, three = by_name(1), by_name(3)
    assert one.keys() == three.keys() and len(one) == 5
    for name, (caption, pixels) in one.items():
        assert caption == three[name][0] and torch.equal(pixels, three[name][1])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_became_unreadable_is_a_user_error_in_the_caller(photos, tmp_path, workers):
    data = photos()
    path = tmp_path / "train" / "1_x" / "3.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError) as caught:
        list(load(data, workers=workers))
    (problem,) = caught.value.problems
    assert problem.where == str(path) and "cannot be decoded" in problem.cause


def test_switching_an_augmentation_on_leaves_the_other_draws_alone(photos):
    nothing = {"face_crop_aug_range": None} | {
        name: type(value)() for name, value in EVERYTHING.items() if name != "face_crop_aug_range"
    }

    def drawn(**options):
        views = [
            make_view(record, index=i, seed=1, epoch=epoch, sample=i)
            for epoch in range(20)
            for i, record in enumerate(photos(**(nothing | options)).records)
        ]
        return [view.flip for view in views], [view.colour for view in views]

    flips, colours = drawn(flip_aug=True, color_aug=True, random_crop=True)
    assert set(flips) == {True, False} and len(set(colours)) > 5
    assert drawn(flip_aug=True, color_aug=True) == (flips, colours)
    assert drawn(flip_aug=True)[0] == flips and drawn(color_aug=True)[1] == colours


def test_masks_have_the_shape_of_their_latents_in_every_bucket(photos):
    shapes = set()
    for batch in load(photos(resolution=((96, 64),)), last=6):
        assert batch.masks.shape == (len(batch.names), 1, *batch.noise.shape[2:])
        shapes.add(tuple(batch.noise.shape[2:]))
    assert any(height != width for height, width in shapes)


def test_cached_texts_are_put_in_after_the_workers(photos):
    class Texts:
        def outputs(self, indices, captions):
            return {"hidden_state1": torch.tensor([[index + 0.5] for index in indices])}

        def __getstate__(self):
            raise AssertionError("a whole cache does not go to a worker")

    alone, together = (list(load(photos(), last=4, text=Texts(), workers=workers)) for workers in (0, 1))
    for one, other in zip(alone, together, strict=True):
        assert one.tokens == other.tokens == ()
        assert torch.equal(one.text["hidden_state1"], other.text["hidden_state1"])
        assert one.captions == other.captions and torch.equal(one.pixels, other.pixels)


def test_with_skip_an_image_that_became_unreadable_counts_nothing_and_is_named_once(photos, tmp_path, capsys):
    data = photos(on_bad_image="skip")
    path = tmp_path / "train" / "1_x" / "3.png"
    path.write_bytes(path.read_bytes()[:200])
    batches = list(load(data, last=6))
    weights = {name: w for b in batches for name, w in zip(b.names, b.weights.tolist(), strict=True)}
    assert {name for name, weight in weights.items() if weight == 0} == {"3.png"}
    assert all(batch.pixels.isfinite().all() for batch in batches)
    assert capsys.readouterr().err.count("3.png: cannot be decoded") == 1


class Latents:
    """A cache that answers every key with a number made from it."""

    bad = frozenset()

    def __getitem__(self, key):
        index, is_flipped = key
        return torch.full((4, 8, 8), index + 0.5 * is_flipped)


@pytest.fixture
def squares(save_image, scan):
    for name in "abcde":
        save_image(f"train/1_x/{name}.png")
    return scan(flip_aug=True, train_batch_size=2)


def batch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_cached_latents_are_used_instead_of_pixels_and_a_thread_changes_nothing(squares, tmp_path):
    for path in (tmp_path / "train" / "1_x").iterdir():
        path.unlink()
    alone = list(load(squares, last=9, latents=Latents()))
    threaded = list(load(squares, last=9, latents=Latents(), workers=4))
    for one, other in zip(alone, threaded, strict=True):
        assert_same(one, other)
        assert one.pixels is None and one.posterior is None
    values = {float(latent[0, 0, 0]) for batch in alone for latent in batch.latents}
    assert {v % 1 for v in values} == {0.0, 0.5} and {int(v) for v in values} == set(range(5))
    assert not batch_threads()


def test_leaving_early_ends_the_thread(squares):
    batches = load(squares, last=1000, latents=Latents(), workers=1)
    next(batches)
    assert batch_threads()
    batches.close()
    assert not batch_threads()


def test_an_exception_in_the_thread_reaches_the_caller(squares):
    def fail(captions):
        raise ValueError("no tokens today")

    with pytest.raises(ValueError, match="no tokens today"):
        next(load(squares, latents=Latents(), workers=1, tokenize=fail))
    assert not batch_threads()


def test_a_batch_moves_with_all_its_tensors(photos):
    batch = next(load(photos())).to("meta")
    tensors = [batch.pixels, *batch.tokens, batch.sizes, batch.weights, batch.noise, batch.u, batch.posterior]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert batch.latents is None
