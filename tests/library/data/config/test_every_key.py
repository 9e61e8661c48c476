"""What each key of a dataset file does to the batches. A test is named after its key and two underscores."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import LATENTS

from library.data.batch import Needs
from library.data.builder import BatchBuilder
from library.data.loader import make_loader
from library.data.plan import Course
from library.data.training_data import TrainingData
from library.options.data import DataOptions

KEYS = json.loads((Path(__file__).parents[3] / "data" / "dataset_keys.json").read_text())


def test_every_key_has_its_test():
    tested = {name.removeprefix("test_").split("__")[0] for name in globals() if "__" in name.strip("_")}
    assert tested == KEYS.keys()


@dataclass
class Draws:
    noise: torch.Tensor
    u: float = 0.5
    posterior: torch.Tensor | None = None
    disturbance: torch.Tensor | None = None
    offset: tuple[torch.Tensor, torch.Tensor] | None = None


def draw(epoch, sample, shape):
    return Draws(torch.zeros(shape))


def tokenize(captions):
    return (torch.zeros(len(captions), 1, 77, dtype=torch.int64),)


@pytest.fixture
def batches(tmp_path):
    """batches({subset keys}, ..., dataset={}, epochs=1, options...) -> the batches of these epochs, of a
    dataset file with these subsets at 64 pixels. Paths are relative to tmp_path/data.
    """

    def load(*subsets, dataset=None, epochs=1, total_steps=100, **options):
        tables = [{**subset, **_absolute(subset, tmp_path / "data")} for subset in subsets or [{}]]
        content = {"datasets": [{"resolution": 64, **(dataset or {}), "subsets": tables}]}
        path = tmp_path / "data.json"
        path.write_text(json.dumps(content))
        data = TrainingData.scan(DataOptions(dataset_config=path, **options), latent_space=LATENTS)
        load.data = data
        course = Course(data.batches_per_epoch(1))
        settings = {"latent_space": LATENTS, "total_steps": total_steps, "needs": Needs(holes=True)}
        builder = BatchBuilder(data, tokenize, draw, seed=3, **settings)
        return list(make_loader(builder, course.positions(0, course.steps_per_epoch * epochs)))

    return load


def _absolute(subset, root):
    """The subset's paths below `root`; its images are in root/train unless it says otherwise."""
    found = {"image_dir": "train"} if "metadata_file" not in subset else {}
    found |= {key: value for key, value in subset.items() if key in ("image_dir", "metadata_file")}
    found |= {key: subset[key] for key in ("conditioning_data_dir", "inpainting_masks") if key in subset}
    if found.get("inpainting_masks") == "alpha":
        return {key: str(root / value) for key, value in found.items() if key != "inpainting_masks"}
    return {key: str(root / value) for key, value in found.items()}


@pytest.fixture
def picture(tmp_path):
    """picture("train/a.png", size=(64, 64), caption=None, pixels=None): an image below tmp_path/data, noise
    unless told.
    """
    rng = np.random.default_rng(0)

    def save(name="train/a.png", size=(64, 64), *, caption=None, pixels=None):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path)
        if caption is not None:
            path.with_suffix(".caption").write_text(caption)
        return pixels

    return save


def captions_of(found):
    return [caption for batch in found for caption in batch.captions]


def names_of(found):
    return [name for batch in found for name in batch.names]


def image_of(batch):
    """The first picture of a batch, uint8 (height, width, 3)."""
    return ((batch.pixels[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()


def shape_of(found):
    """(width, height) of the only batch's pictures."""
    (batch,) = found
    return batch.pixels.shape[3], batch.pixels.shape[2]


def half_transparent():
    """64 x 64 RGBA; the left half is transparent."""
    pixels = np.full((64, 64, 4), 200, np.uint8)
    pixels[:, :32, 3], pixels[:, 32:, 3] = 0, 255
    return pixels


LEFT_BLACK = [0.0] * 4 + [1.0] * 4  # a row of that mask, one value for eight pixels


def test_alpha_mask__weighs_the_picture_by_its_alpha(picture, batches):
    picture(pixels=half_transparent())
    (plain,), (masked,) = batches({}), batches({"alpha_mask": True})
    assert plain.masks is None
    assert masked.masks.tolist() == [[[LEFT_BLACK] * 8]]


def test_batch_size__is_how_many_pictures_a_batch_has(picture, batches):
    for name in "abc":
        picture(f"train/{name}.png")
    assert [len(batch.names) for batch in batches()] == [1, 1, 1]
    assert sorted(len(batch.names) for batch in batches(dataset={"batch_size": 2})) == [1, 2]


def test_bucket_no_upscale__keeps_small_pictures_small(picture, batches):
    picture(size=(48, 32))
    settings = {"enable_bucket": True, "bucket_reso_steps": 8, "min_bucket_reso": 8}
    assert shape_of(batches(dataset=settings)) != (48, 32)
    assert shape_of(batches(dataset=settings | {"bucket_no_upscale": True})) == (48, 32)


def test_bucket_reso_steps__is_what_the_sides_are_multiples_of(picture, batches):
    picture(size=(90, 60))
    settings = {"enable_bucket": True, "min_bucket_reso": 32}
    shapes = [shape_of(batches(dataset=settings | {"bucket_reso_steps": step})) for step in (8, 32)]
    assert shapes == [(80, 48), (64, 64)]


def test_cache_info__keeps_sizes_and_captions_and_changes_no_batch(picture, batches, tmp_path):
    picture(size=(70, 64), caption="a cat")
    first, again, without = batches({"cache_info": True}), batches({"cache_info": True}), batches({})
    index = json.loads((tmp_path / "data" / "train" / "metadata_cache.json").read_text())
    (entry,) = index.values()
    assert (entry["caption"], entry["resolution"]) == ("a cat", [70, 64])
    for (one,), (other,) in ((first, again), (first, without)):
        assert one.captions == other.captions and torch.equal(one.pixels, other.pixels)


def test_caption_dropout_every_n_epochs__empties_the_captions_of_the_nth_epoch(picture, batches):
    picture(caption="cat")
    found = batches({"caption_dropout_every_n_epochs": 2}, epochs=4)
    assert captions_of(found) == ["cat", "", "cat", ""]


def test_caption_dropout_rate__empties_that_share_of_captions(picture, batches):
    picture(caption="cat")
    counts = [captions_of(batches({"caption_dropout_rate": p}, epochs=200)).count("") for p in (0, 0.25, 1)]
    assert counts[0] == 0 and 30 < counts[1] < 70 and counts[2] == 200


def test_caption_extension__is_the_suffix_of_caption_files(picture, batches, tmp_path):
    picture(caption="from .caption")
    (tmp_path / "data" / "train" / "a.txt").write_text("from .txt")
    assert captions_of(batches()) == ["from .caption"]
    assert captions_of(batches({"caption_extension": "txt"})) == ["from .txt"]


def test_caption_prefix__stands_before_every_caption(picture, batches):
    picture(caption="cat")
    assert captions_of(batches({"caption_prefix": "a photo of"})) == ["a photo of cat"]


def test_caption_separator__is_what_tags_are_split_at(picture, batches):
    picture(caption="a, b; c")
    found = set(captions_of(batches({"caption_separator": ";", "shuffle_caption": True}, epochs=20)))
    assert found == {"a, b; c", "c; a, b"}


def test_caption_suffix__stands_after_every_caption(picture, batches):
    picture(caption="cat")
    assert captions_of(batches({"caption_suffix": "on a mat"})) == ["cat on a mat"]


def test_caption_tag_dropout_rate__leaves_out_that_share_of_tags(picture, batches):
    picture(caption="a, b, c")
    texts = captions_of(batches({"caption_tag_dropout_rate": 0.25}, epochs=200))
    tags = [tag for text in texts for tag in text.split(", ") if tag]
    assert 400 < len(tags) < 500 and set(tags) == {"a", "b", "c"}
    assert captions_of(batches({"caption_tag_dropout_rate": 1})) == [""]


def test_class_tokens__are_the_caption_where_there_is_no_file(picture, batches):
    picture("train/a.png", caption="a cat")
    picture("train/b.png")
    assert set(captions_of(batches({"class_tokens": "sks dog"}))) == {"a cat", "sks dog"}


def test_color_aug__changes_the_colours_of_about_every_third_picture(picture, batches):
    pixels = picture()
    changed = [not np.array_equal(image_of(b), pixels) for b in batches({"color_aug": True}, epochs=60)]
    assert 8 < sum(changed) < 32
    assert all(np.array_equal(image_of(batch), pixels) for batch in batches(epochs=3))


def test_conditioning_data_dir__has_the_masks(picture, batches):
    picture()
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[:, 32:, 0] = 255
    picture("masks/a.png", pixels=mask)
    (batch,) = batches({"conditioning_data_dir": "masks"}, masked_loss=True)
    assert batch.masks.tolist() == [[[LEFT_BLACK] * 8]]


def test_custom_attributes__come_with_every_picture_of_the_subset(picture, batches):
    picture("train/a.png")
    picture("other/b.png")
    subsets = {"custom_attributes": {"diff_output_preservation": True}}, {"image_dir": "other"}
    found = {batch.names[0]: dict(batch.attributes[0]) for batch in batches(*subsets)}
    assert found == {"a.png": {"diff_output_preservation": True}, "b.png": {}}


def test_enable_bucket__keeps_the_shape_of_pictures(picture, batches):
    picture(size=(96, 48))
    settings = {"min_bucket_reso": 32, "bucket_reso_steps": 8}
    assert shape_of(batches(dataset=settings)) == (64, 64)
    assert shape_of(batches(dataset=settings | {"enable_bucket": True})) == (88, 40)


def test_enable_wildcard__takes_one_line_and_one_choice(picture, batches):
    picture(caption="a {red|{light|dark} blue} cat\na dog")
    assert captions_of(batches()) == ["a {red|{light|dark} blue} cat"]
    found = set(captions_of(batches({"enable_wildcard": True}, epochs=60)))
    assert found == {"a red cat", "a light blue cat", "a dark blue cat", "a dog"}


def test_face_crop_aug_range__crops_around_the_face_in_the_file_name(picture, batches):
    """The face is 16 pixels in the upper right of 256: a crop of 64 pixels is four faces, or more when the
    picture is made smaller.
    """
    picture("train/a_0224_0032_0016_0016.png", size=(256, 256))
    (whole,) = batches()
    crops = [tuple(b.sizes[0, 2:4].tolist()) for b in batches({"face_crop_aug_range": [4, 4]}, epochs=3)]
    assert tuple(whole.sizes[0, 2:4].tolist()) == (0, 0)
    assert crops == [(0, 192)] * 3
    lefts = {b.sizes[0, 3].item() for b in batches({"face_crop_aug_range": [4, 8]}, epochs=20)}
    assert len(lefts) > 10 and min(lefts) >= 64 and max(lefts) <= 192


def test_flip_aug__mirrors_every_second_picture(picture, batches):
    pixels = picture()
    found = [image_of(batch) for batch in batches({"flip_aug": True}, epochs=40)]
    mirrored = sum(np.array_equal(image, pixels[:, ::-1]) for image in found)
    assert mirrored + sum(np.array_equal(image, pixels) for image in found) == 40
    assert 10 < mirrored < 30


def test_image_dir__is_where_the_pictures_are(picture, batches):
    picture("one/a.png")
    picture("two/b.png")
    assert names_of(batches({"image_dir": "one"})) == ["a.png"]
    assert sorted(names_of(batches({"image_dir": "one"}, {"image_dir": "two"}))) == ["a.png", "b.png"]


def test_inpainting_masks__says_what_is_painted_anew(picture, batches):
    picture(pixels=half_transparent())
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[8:24] = 255
    picture("masks/a.png", pixels=mask)
    (drawn,), (again,) = batches({}), batches({})
    assert torch.equal(drawn.holes, again.holes) and 0.05 < drawn.holes.mean() < 0.7
    (alpha,) = batches({"inpainting_masks": "alpha"})
    assert alpha.holes[0, 0].tolist() == [[1.0] * 32 + [0.0] * 32] * 64
    (named,) = batches({"inpainting_masks": "masks"})
    assert named.holes.shape == (1, 1, 64, 64) and named.holes.dtype == torch.float32
    assert torch.equal(named.holes[0, 0] > 0, torch.from_numpy(mask[..., 0] > 0))


def test_is_reg__gives_pictures_the_prior_loss_weight(picture, batches):
    picture("train/a.png")
    picture("class/b.png")
    found = batches({}, {"image_dir": "class", "is_reg": True}, prior_loss_weight=0.25)
    assert {batch.names[0]: batch.weights.item() for batch in found} == {"a.png": 1.0, "b.png": 0.25}


def test_keep_tokens__holds_the_first_tags_in_place(picture, batches):
    picture(caption="a, b, c, d")
    found = set(captions_of(batches({"shuffle_caption": True, "keep_tokens": 2}, epochs=20)))
    assert found == {"a, b, c, d", "a, b, d, c"}


def test_keep_tokens_separator__marks_the_tags_that_stay_in_place(picture, batches):
    picture(caption="a, b ||| c, d ||| e")
    settings = {"shuffle_caption": True, "keep_tokens_separator": "|||"}
    assert set(captions_of(batches(settings, epochs=20))) == {"a, b, c, d, e", "a, b, d, c, e"}


def test_max_bucket_reso__is_the_longest_side(picture, batches):
    picture(size=(200, 40))
    settings = {"enable_bucket": True, "min_bucket_reso": 8, "bucket_reso_steps": 8}
    shapes = [shape_of(batches(dataset=settings | {"max_bucket_reso": side})) for side in (256, 96)]
    assert [width for width, _ in shapes] == [136, 96]


def test_metadata_file__names_the_pictures_and_their_captions(picture, batches, tmp_path):
    picture("train/a.png", caption="from the file")
    picture("train/b.png")
    (tmp_path / "data" / "meta.json").write_text('{"a": {"caption": "a cat", "tags": "red"}}')
    found = batches({"metadata_file": "meta.json", "image_dir": "train"})
    assert (names_of(found), captions_of(found)) == (["a.png"], ["a cat, red"])


def test_min_bucket_reso__is_the_shortest_side(picture, batches):
    picture(size=(200, 40))
    settings = {"enable_bucket": True, "bucket_reso_steps": 8}
    shapes = [shape_of(batches(dataset=settings | {"min_bucket_reso": side})) for side in (8, 56)]
    assert shapes[0][1] < 56 and shapes[1] == (72, 56)


def test_network_multiplier__comes_with_every_batch(picture, batches):
    picture()
    assert [batch.network_multiplier for batch in batches()] == [1.0]
    assert [batch.network_multiplier for batch in batches(dataset={"network_multiplier": -2})] == [-2.0]


def test_num_repeats__is_how_often_an_epoch_has_a_picture(picture, batches):
    picture("train/a.png")
    picture("other/b.png")
    found = names_of(batches({"num_repeats": 3}, {"image_dir": "other"}))
    assert sorted(found) == ["a.png", "a.png", "a.png", "b.png"]


def test_random_crop__crops_anywhere(picture, batches):
    pixels = picture(size=(100, 64))
    lefts = set()
    for batch in batches({"random_crop": True}, epochs=30):
        left = batch.sizes[0, 3].item()
        assert np.array_equal(image_of(batch), pixels[:, left : left + 64])
        lefts.add(left)
    assert len(lefts) > 10
    assert [batch.sizes[0, 3].item() for batch in batches(epochs=3)] == [18, 18, 18]


def test_resize_interpolation__is_how_pictures_are_resized(picture, batches):
    board = np.indices((128, 128)).sum(0) % 2 * 255
    picture(pixels=np.repeat(board[..., None], 3, 2).astype(np.uint8))
    values = [
        set(np.unique(image_of(batches({"resize_interpolation": name})[0]))) for name in ("nearest", "area")
    ]
    assert values[0] <= {0, 255} and values[1] <= {127, 128}


def test_resolution__is_the_size_and_may_be_several(picture, batches):
    picture(size=(300, 300))
    assert shape_of(batches(dataset={"resolution": [128, 64]})) == (128, 64)
    found = batches(dataset={"resolution": [[64, 64], "128,96", [256]]})
    assert sorted(tuple(batch.pixels.shape[:1:-1]) for batch in found) == [(64, 64), (128, 96), (256, 256)]


def test_secondary_separator__holds_tags_together(picture, batches):
    picture(caption="a;;;b, c")
    settings = {"shuffle_caption": True, "secondary_separator": ";;;"}
    assert set(captions_of(batches(settings, epochs=20))) == {"a,b, c", "c, a,b"}


def test_shuffle_caption__puts_tags_into_another_order_in_every_epoch(picture, batches):
    picture(caption="a, b, c")
    found = captions_of(batches({"shuffle_caption": True}, epochs=60))
    assert len(set(found)) == 6 and {frozenset(text.split(", ")) for text in found} == {frozenset("abc")}


def test_token_warmup_min__is_how_many_tags_there_are_at_first(picture, batches):
    picture(caption="a, b, c, d")
    found = captions_of(batches({"token_warmup_step": 2, "token_warmup_min": 2}, epochs=3))
    assert found == ["a, b", "a, b, c", "a, b, c, d"]


def test_token_warmup_step__is_when_all_tags_are_there(picture, batches):
    picture(caption="a, b, c")
    found = captions_of(batches({"token_warmup_step": 2}, epochs=3))
    assert found == ["a", "a, b", "a, b, c"]
    assert captions_of(batches({"token_warmup_step": 0.4}, epochs=3, total_steps=5)) == found


def held_out(load):
    return sorted(record.image.name for record in load.data.validation.records)


def test_validation_seed__chooses_what_is_held_out(picture, batches):
    for number in range(10):
        picture(f"train/{number}.png")
    chosen = []
    for seed in (1, 1, 2):
        batches(dataset={"validation_split": 0.3, "validation_seed": seed})
        chosen.append(held_out(batches))
    assert chosen[0] == chosen[1] != chosen[2]


def test_validation_split__is_the_share_that_is_not_trained_on(picture, batches):
    for number in range(10):
        picture(f"train/{number}.png")
    assert len(names_of(batches())) == 10 and batches.data.validation is None
    trained = names_of(batches(dataset={"validation_split": 0.3}))
    assert len(trained) == 7 and sorted(trained + held_out(batches)) == [f"{n}.png" for n in range(10)]
