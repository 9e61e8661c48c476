import json
import sys
from pathlib import Path

import pytest
from dataset_files import KINDS, SIZE, complaints, tables

from library.data.config.datasets import read_datasets
from library.data.config.specs import DATASET_KEYS, OPTION_NAMES, SUBSET_KEYS
from library.options.data import DataOptions
from library.options.fields import specs_of

# Of sd-scripts: each key's places, type, default, and option with its default.
KEYS = json.loads((Path(__file__).parents[3] / "data" / "dataset_keys.json").read_text())


def test_the_keys_are_those_of_sd_scripts():
    assert {*DATASET_KEYS, *SUBSET_KEYS} == KEYS.keys()


@pytest.mark.parametrize("key", [key for key in KEYS if "cmdline" in KEYS[key]])
def test_a_key_has_the_option_and_the_default_of_sd_scripts(key):
    assert KEYS[key]["cmdline"] == f"--{OPTION_NAMES.get(key, key)}"
    (spec,) = [spec for spec in specs_of(DataOptions) if spec.name == OPTION_NAMES.get(key, key)]
    assert spec.default == KEYS[key]["cmdline_default"]


# Of each key: a value for each place, most special first, as written; the last stands in no file.
VALUES = {
    "batch_size": (5, 4, 3, 2),
    "bucket_no_upscale": (True, False),
    "bucket_reso_steps": (8, 16, 32, 128),
    "cache_info": (True, False),
    "caption_dropout_every_n_epochs": (4, 3, 2, 1),
    "caption_dropout_rate": (1, 0.5, 0.25, 0.125),
    "caption_extension": (".a", ".b", ".c", ".d"),
    "caption_prefix": ("", "b", "c", "d"),
    "caption_separator": (";", "|", "/", "+"),
    "caption_suffix": ("", "b", "c", "d"),
    "caption_tag_dropout_rate": (0, 0.5, 0.25, 0.125),
    "class_tokens": ("a", "b", "c", None),
    "color_aug": (True, False),
    "custom_attributes": ({"a": 1}, {"b": {"c": 2}}, {"d": 3}, {}),
    "enable_bucket": (True, False),
    "enable_wildcard": (True, False),
    "face_crop_aug_range": ([1.5, 2], [1, 3], [2, 2], [1, 1]),
    "flip_aug": (True, False),
    "keep_tokens": (0, 3, 2, 1),
    "keep_tokens_separator": ("", "b", "c", "d"),
    "max_bucket_reso": (1024, 768, 512, 256),
    "min_bucket_reso": (64, 32, 16, 8),
    "network_multiplier": (2, -0.5, 0.25, 1.0),
    "num_repeats": (4, 3, 2, 5),
    "random_crop": (True, False),
    "resize_interpolation": ("lanczos", "area", "nearest", "cubic"),
    "resolution": (64, [128, 64], "64,128", 256),
    "secondary_separator": ("", "b", "c", "d"),
    "shuffle_caption": (True, False),
    "token_warmup_min": (0, 3, 2, 1),
    "token_warmup_step": (0, 0.5, 10, 20),
    "inpainting_masks": ("alpha", "masks", "random", "other"),
    "validation_seed": (0, 3, 2, 1),
    "validation_split": (0.1, 0.2, 0.3, 0.4),
}
READ = {
    "face_crop_aug_range": tuple,
    "inpainting_masks": lambda given: given if given in ("alpha", "random") else Path(given),
    "resolution": {64: (64, 64), (128, 64): (128, 64), "64,128": (64, 128), 256: (256, 256)}.get,
}


def as_read(key, value):
    """What a value of VALUES becomes."""
    value = tuple(value) if isinstance(value, list) else value
    return READ.get(key, lambda given: given)(value)


def found(datasets, key):
    (dataset,) = datasets
    return getattr(dataset, key) if key in DATASET_KEYS else getattr(dataset.subsets[0], key)


def command_line(key, value):
    """The option of a key as DataOptions takes it; none where it has none."""
    name = OPTION_NAMES.get(key, key)
    if name not in {spec.name for spec in specs_of(DataOptions)}:
        return {}
    return {name: (as_read(key, value),) if key == "resolution" else as_read(key, value)}


PLACES = ("subset", "dataset", "general")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", VALUES)
def test_a_key_works_wherever_it_may_stand_and_the_most_special_place_wins(read, kind, key, capsys):
    allowed = [p for p in PLACES if p in KEYS[key]["where"] or f"{kind}.{p}" in KEYS[key]["where"]]
    if allowed in ([], ["general"]):  # in [general] for datasets of other kinds
        read(tables(kind, dataset={key: VALUES[key][0]}), resolution=SIZE)
        assert f"{key}: has no effect in a dataset of" in capsys.readouterr().err
        return
    values = dict(zip(PLACES, VALUES[key] * 2, strict=False))
    last = VALUES[key][-1]
    options = {"resolution": ((512, 512),)} | command_line(key, last)
    for number in range(len(allowed)):
        given = {place: {key: values[place]} for place in allowed[number:]}
        special = {place: {key: None} for place in allowed[:number]}  # null falls through
        assert found(read(tables(kind, **given, **special), **options), key) == as_read(
            key, values[allowed[number]]
        )
    nothing = read(tables(kind, **{place: {key: None} for place in allowed}), **options)
    assert found(nothing, key) == as_read(key, last)


def test_every_key_but_the_subsets_own_is_in_that_test():
    own = {key for key, entry in KEYS.items() if all(place.endswith(".subset") for place in entry["where"])}
    assert VALUES.keys() == KEYS.keys() - own
    assert own == {"alpha_mask", "image_dir", "metadata_file", "conditioning_data_dir", "is_reg"}


@pytest.mark.parametrize(
    ("key", "value", "kinds"),
    [
        ("alpha_mask", True, ["dreambooth", "finetuning"]),
        ("is_reg", True, ["dreambooth"]),
        ("image_dir", "b", ["dreambooth", "finetuning", "controlnet"]),
        ("metadata_file", "n.json", ["finetuning"]),
        ("conditioning_data_dir", "d", ["controlnet"]),
    ],
)
def test_a_key_of_subsets_works_in_the_kinds_that_have_it(read, key, value, kinds, capsys):
    expected = Path(value) if isinstance(value, str) else value
    for kind in KINDS:
        if kind in kinds:
            assert found(read(tables(kind, subset={key: value}), resolution=SIZE), key) == expected
        elif key == "alpha_mask":
            read(tables(kind, subset={key: value}), resolution=SIZE)
            assert f"{key}: has no effect in a dataset of" in capsys.readouterr().err
        elif key == "is_reg":
            (line,) = complaints(read, tables(kind, subset={key: value}), resolution=SIZE)
            assert f"{key}: means nothing in a dataset of" in line


def test_an_own_alpha_mask_may_be_taken_back_from_a_wider_place(read):
    given = tables("dreambooth", general={"alpha_mask": True}, subset={"alpha_mask": False})
    assert found(read(given, resolution=SIZE, alpha_mask=True), "alpha_mask") is False


@pytest.mark.parametrize("key", ["image_dir", "metadata_file", "conditioning_data_dir", "is_reg"])
def test_where_images_are_is_said_in_subsets_only(read, key):
    (line,) = complaints(read, tables("dreambooth", dataset={key: "x"}), resolution=SIZE)
    assert line == f"data.json: dataset 1: {key}: belongs in [[datasets.subsets]]; move it there"


def test_each_subset_has_its_own_and_each_dataset(read):
    datasets = read(
        """
        [general]
        shuffle_caption = true
        [[datasets]]
        keep_tokens = 3
        batch_size = 4
        resolution = [512, 768]
        [[datasets.subsets]]
        image_dir = "a"
        keep_tokens = 4
        [[datasets.subsets]]
        image_dir = "b"
        shuffle_caption = false
        keep_tokens = 0
        [[datasets]]
        resolution = ["640,320", 64]
        subsets = [{metadata_file = "m.json", image_dir = "b"}]
        """
    )
    assert [(d.resolution, d.batch_size, d.is_dreambooth) for d in datasets] == [
        ((512, 768), 4, True),
        ((640, 320), 1, False),
        ((64, 64), 1, False),
    ]
    settings = [[(s.source.name, s.shuffle_caption, s.keep_tokens) for s in d.subsets] for d in datasets]
    assert settings == [[("a", True, 4), ("b", False, 0)], [("m.json", True, 0)], [("m.json", True, 0)]]


def test_a_caption_extension_gets_its_dot(read):
    assert (
        found(
            read(tables("dreambooth", subset={"caption_extension": "txt"}), resolution=SIZE),
            "caption_extension",
        )
        == ".txt"
    )


def test_toml_and_json_say_the_same(read):
    toml = """
        [general]
        resolution = [64, 96]
        [[datasets]]
        face_crop_aug_range = [1.5, 2.0]
        [[datasets.subsets]]
        image_dir = 'my pictures\\dog'
        custom_attributes = {a = 1}
    """
    content = {
        "general": {"resolution": [64, 96]},
        "datasets": [
            {
                "face_crop_aug_range": [1.5, 2.0],
                "subsets": [{"image_dir": "my pictures\\dog", "custom_attributes": {"a": 1}}],
            }
        ],
    }
    assert read(toml) == read(content) == read(json.dumps(content), "DATA.JSON")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_dataset_file_may_come_from_any_editor(tmp_path, encoding, line_end):
    text = "[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = 'für'\n"
    path = tmp_path / "data.toml"
    path.write_bytes(text.replace("\n", line_end).encode(encoding))
    (dataset,) = read_datasets(DataOptions(dataset_config=path), pixel_multiple=8)
    assert dataset.subsets[0].image_dir == Path("für")


def test_paths_are_relative_to_the_working_folder_and_the_home_folder_is_known(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets = read(tables("dreambooth", subset={"image_dir": "~/dogs"}), resolution=SIZE)
    assert found(datasets, "image_dir") == Path.home() / "dogs"
    (tmp_path / "pictures").mkdir()
    datasets = read(tables("dreambooth", subset={"image_dir": "./pictures"}), resolution=SIZE)
    assert found(datasets, "image_dir").resolve() == tmp_path / "pictures"


@pytest.mark.skipif(sys.platform == "win32", reason="there, both are the same path")
def test_a_path_written_on_windows_is_found_on_other_systems(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures" / "dog").mkdir(parents=True)
    toml = "[[datasets]]\nsubsets = [{image_dir = 'pictures\\dog'}, {image_dir = 'pictures\\cat'}]\n"
    folders = [str(subset.image_dir) for subset in read(toml, resolution=SIZE)[0].subsets]
    assert folders == ["pictures/dog", "pictures\\cat"]


def test_subsets_without_repeats_and_second_mentions_are_left_out_with_a_warning(read, capsys):
    (dataset,) = read(
        """
        [[datasets]]
        resolution = 64
        subsets = [{image_dir = "a"}, {image_dir = "b", num_repeats = 0}, {image_dir = "./a"}]
        """
    )
    assert [str(subset.image_dir) for subset in dataset.subsets] == ["a"]
    assert capsys.readouterr().err == (
        "warning: b: num_repeats is 0, so it is left out\n"
        "warning: a: is there twice in one dataset; the second one is left out\n"
    )


def test_bucket_limits_must_hold_the_resolution_and_are_rounded_with_a_warning(read, capsys):
    text = '[[datasets]]\nenable_bucket = true\nsubsets = [{image_dir = "a"}]\n'
    assert complaints(read, text, resolution=((200, 1100),)) == [
        "--min_bucket_reso: 256 is more than the resolution 200,1100; lower it",
        "--max_bucket_reso: 1024 is less than the resolution 200,1100; raise it",
    ]
    assert complaints(read, text, resolution=((512, 512),), bucket_reso_steps=12) == [
        "--bucket_reso_steps: is 12; it must be a multiple of 8 (64 suits every model)"
    ]
    assert complaints(read, text + "bucket_no_upscale = true", resolution=((32, 32),)) == [
        "--resolution: 32,32 is smaller than one bucket step of 64 x 64; raise it, or lower bucket_reso_steps"
    ]
    capsys.readouterr()
    read(text, resolution=((512, 512),), min_bucket_reso=300)
    assert "--min_bucket_reso: 300 is rounded outwards to a multiple of 64" in capsys.readouterr().err
    read(text + "bucket_no_upscale = true", resolution=((200, 1100),))


def test_a_bucket_limit_is_said_to_be_rounded_once_for_all_resolutions_and_datasets(read, capsys):
    table = '[[datasets]]\nenable_bucket = true\nsubsets = [{image_dir = "a"}]\n'
    read(table + table, resolution=((512, 512), (768, 768)), max_bucket_reso=1000)
    assert capsys.readouterr().err == (
        "warning: --max_bucket_reso: 1000 is rounded outwards to a multiple of 64\n"
    )


def test_without_buckets_the_resolution_must_be_encodable(read):
    text = '[[datasets]]\nresolution = 500\nsubsets = [{image_dir = "a"}]'
    assert complaints(read, text) == [
        "data.toml:2: dataset 1: resolution: is 500,500; sides must be multiples of 8"
    ]


def test_class_folders_give_repeats_and_tokens_and_dataset_repeats_multiplies_them(tmp_path, capsys):
    for name in ("img/10_sks dog", "img/2_a_b", "img/notes", "img/.hidden", "reg/1_dog"):
        (tmp_path / name).mkdir(parents=True)
    options = DataOptions(
        train_data_dir=tmp_path / "img", reg_data_dir=tmp_path / "reg", resolution=SIZE, dataset_repeats=3
    )
    (dataset,) = read_datasets(options, pixel_multiple=8)
    found = [(s.name, s.num_repeats, s.class_tokens, s.is_reg) for s in dataset.subsets]
    assert found == [
        ("10_sks dog", 30, "sks dog", False),
        ("2_a_b", 6, "a_b", False),
        ("1_dog", 3, "dog", True),
    ]
    assert "left out: 'notes'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "given", "message"),
    [
        (
            [],
            "img",
            "has no <repeats>_<class tokens> folder; it is empty; put the images into a folder such as",
        ),
        (["a.png", "b.txt"], "img", "found 1 .png file, 1 .txt file; move the images to a folder such as"),
        (["10_cat/a.png"], "img/10_cat", "found 1 .png file; give the folder above it:"),
        (["deep/10_cat/a.png"], "img", "found 1 folder ('deep'); did you mean"),
        (["cat/a.png"], "img", "found 1 folder ('cat'); rename the folders, such as"),
        ([], "img/typo/x", "there is no such folder;"),
        (["a.png"], "img/a.png", "is a file, not a folder"),
    ],
)
def test_a_wrong_folder_says_what_is_there_and_what_to_do(tmp_path, layout, given, message):
    (tmp_path / "img").mkdir()
    for name in layout:
        (tmp_path / "img" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "img" / name).touch()
    options = DataOptions(train_data_dir=tmp_path / given, resolution=SIZE)
    (found,) = complaints(read_datasets, options, pixel_multiple=8)
    assert found.startswith(f"--train_data_dir {tmp_path / given}: ")
    assert message in found


def test_in_json_is_a_fine_tuning_dataset_over_the_image_folder(tmp_path):
    options = DataOptions(train_data_dir=tmp_path, in_json=tmp_path / "m.json", resolution=SIZE)
    (dataset,) = read_datasets(options, pixel_multiple=8)
    (subset,) = dataset.subsets
    assert not dataset.is_dreambooth
    assert (subset.image_dir, subset.metadata_file, subset.name) == (tmp_path, tmp_path / "m.json", "m.json")


def test_what_sides_are_multiples_of_is_the_models(tmp_path):
    (tmp_path / "1_x").mkdir()
    options = {"train_data_dir": tmp_path, "resolution": ((72, 64),)}
    (dataset,) = read_datasets(DataOptions(**options), pixel_multiple=8)
    assert dataset.resolution == (72, 64)
    assert complaints(read_datasets, DataOptions(**options), pixel_multiple=16) == [
        "--resolution: is 72,64; sides must be multiples of 16"
    ]
    buckets = DataOptions(**options, enable_bucket=True, bucket_reso_steps=24, min_bucket_reso=24)
    (dataset,) = read_datasets(buckets, pixel_multiple=8)
    assert dataset.bucket_reso_steps == 24
    assert complaints(read_datasets, buckets, pixel_multiple=16) == [
        "--bucket_reso_steps: is 24; it must be a multiple of 16 (64 suits every model)"
    ]


@pytest.mark.parametrize("step", [1, 7])
def test_a_bucket_step_that_the_vae_cannot_encode_is_raised(read, step, capsys):
    text = "[general]\nresolution = 64\nenable_bucket = true\nmin_bucket_reso = 32\n"
    text += f"bucket_reso_steps = {step}\n"
    (dataset,) = read(text + "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\n")
    assert dataset.bucket_reso_steps == 8
    (line,) = capsys.readouterr().err.splitlines()
    why = f"{step} is raised to 8: the sides of buckets must be multiples of that"
    assert line == f"warning: data.toml:5: general: bucket_reso_steps: {why}"


def test_what_asks_for_nothing_in_a_dataset_file_is_passed_over(read, capsys):
    text = "[general]\nresolution = 64\nface_crop_aug_range = ''\nsome_key = false\nother = 0\n"
    text += "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\nflip_aug = 0\nkeep = ''\n"
    text += "shuffle_caption = 1\n"
    (dataset,) = read(text)
    assert not dataset.subsets[0].flip_aug and dataset.subsets[0].shuffle_caption
    assert capsys.readouterr().err == ""
