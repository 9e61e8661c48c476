import json

import pytest

from library.data.config import read_datasets
from library.data.config_file import NOT_YET
from library.data.specs import DATASET_KEYS, SUBSET_KEYS
from library.options.data import DataOptions
from library.problems import UserError


@pytest.fixture
def read(tmp_path):
    """read(toml_text, option=value, ...) -> the datasets of a dataset file."""

    def read_text(text, name="data.toml", **options):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_datasets(DataOptions(dataset_config=path, **options))

    return read_text


def complaints(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return [str(problem) for problem in caught.value.problems]


def test_a_value_is_looked_for_in_subset_dataset_general_and_command_line(read):
    (dataset,) = read(
        """
        [general]
        keep_tokens = 2
        shuffle_caption = true
        resolution = 512
        [[datasets]]
        keep_tokens = 3
        batch_size = 4
        [[datasets.subsets]]
        image_dir = "a"
        keep_tokens = 4
        shuffle_caption = false
        [[datasets.subsets]]
        image_dir = "b"
        """,
        flip_aug=True,
        train_batch_size=9,
        dataset_repeats=7,
        bucket_reso_steps=32,
    )
    first, second = dataset.subsets
    assert (first.keep_tokens, second.keep_tokens) == (4, 3)
    assert (first.shuffle_caption, second.shuffle_caption) == (False, True)
    assert first.flip_aug and second.num_repeats == 7 and first.caption_extension == ".caption"
    assert (dataset.resolution, dataset.batch_size, dataset.bucket_reso_steps) == ((512, 512), 4, 32)
    assert dataset.is_dreambooth


def test_each_dataset_has_its_own_resolution_and_batch_size(read):
    datasets = read(
        """
        datasets = [
          {resolution = [512, 768], batch_size = 2, subsets = [{image_dir = "a"}]},
          {resolution = "640,320", subsets = [{metadata_file = "m.json", image_dir = "b"}]},
        ]
        """
    )
    assert [(d.resolution, d.batch_size) for d in datasets] == [((512, 768), 2), ((640, 320), 1)]
    assert [d.is_dreambooth for d in datasets] == [True, False]


def test_json_null_counts_as_not_given_and_whole_numbers_serve_as_floats(read):
    content = {
        "general": {"resolution": 64, "caption_dropout_rate": 1, "caption_extension": "txt"},
        "datasets": [{"subsets": [{"image_dir": "a", "caption_dropout_rate": None, "class_tokens": "cat"}]}],
    }
    (dataset,) = read(json.dumps(content), "data.JSON")
    (subset,) = dataset.subsets
    assert (subset.caption_dropout_rate, subset.caption_extension, subset.class_tokens) == (
        1.0,
        ".txt",
        "cat",
    )


def test_every_mistake_of_a_file_is_named_with_its_table(read):
    text = """
        extra = 1
        [general]
        shufle_caption = true
        keep_tokens = "many"
        color_aug = true
        image_dir = "x"
        [[datasets]]
        resolution = [64]
        batch_size = 0
        token_warmup_step = 10
        [[datasets.subsets]]
        image_dir = "a"
        flip_aug = 1
        resolution = 64
        resize_interpolation = "area51"
        caption_dropout_rate = 1.5
        [[datasets.subsets]]
        is_reg = true
        [[datasets]]
        [[datasets.subsets]]
        metadata_file = "m.json"
        caption_extension = ".txt"
        [[datasets]]
        subsets = []
    """
    choices = "lanczos, nearest, bilinear, linear, bicubic, cubic, area"
    found = complaints(read, text)
    assert sorted(found) == sorted(
        [
            "data.toml: extra: there is no such key; there are: datasets, general",
            "data.toml: general: shufle_caption: there is no such key; did you mean shuffle_caption?",
            "data.toml: general: keep_tokens: expects a whole number, got 'many'",
            "data.toml: general: color_aug: is not available yet; remove it",
            "data.toml: general: image_dir: belongs in a subset; move it to [[datasets.subsets]]",
            "data.toml: dataset 1: batch_size: must be 1 or more, got 0",
            "data.toml: dataset 1: token_warmup_step: is not available yet; remove it",
            "data.toml: dataset 1, subset 1: flip_aug: expects true or false, got 1",
            "data.toml: dataset 1, subset 1: resolution: belongs in a dataset or in [general]; move it there",
            f"data.toml: dataset 1, subset 1: resize_interpolation: expects one of {choices}, got 'area51'",
            "data.toml: dataset 1, subset 1: caption_dropout_rate: is a probability: 0 to 1, got 1.5",
            "data.toml: dataset 1, subset 2: needs image_dir, the folder with the images",
            "data.toml: dataset 2, subset 1: caption_extension: is for image folders; this dataset has"
            " metadata files; remove it",
            "data.toml: dataset 3: subsets: is missing or empty; [[datasets]] with [[datasets.subsets]] is"
            " needed",
            "--resolution: is needed: the size to train at, such as 512 or 512,768",
        ]
    )


@pytest.mark.parametrize("key", NOT_YET)
def test_what_is_not_available_yet_is_refused_by_name_but_its_default_is_not(read, key):
    table = {"image_dir": "a", key: "something"}
    content = {"general": {"resolution": 64}, "datasets": [{"subsets": [table]}]}
    message = f"data.json: dataset 1, subset 1: {key}: is not available yet; remove it"
    assert complaints(read, json.dumps(content), "data.json") == [message]
    for default in NOT_YET[key]:
        table[key] = default
        assert read(json.dumps(content), "data.json")[0].subsets[0].image_dir is not None


def test_no_key_is_both_available_and_not():
    assert not NOT_YET.keys() & {*DATASET_KEYS, *SUBSET_KEYS}


def test_folders_and_metadata_files_do_not_mix_in_one_dataset(read):
    text = """
        [[datasets]]
        resolution = 64
        subsets = [{image_dir = "a"}, {metadata_file = "m.json"}]
    """
    (message,) = complaints(read, text)
    assert message.startswith("data.toml: dataset 1: has subsets with and without metadata_file; make two")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.yaml", "", "data.yaml: must be a .toml or .json file"),
        ("data.toml", "a = = 1", "data.toml: is not valid TOML: Invalid value (at line 1, column 5)"),
        ("data.json", "{", "data.json: is not valid JSON: Expecting property name enclosed in double quotes"),
        ("data.json", "[]", "data.json: must hold the tables general and datasets"),
        ("data.toml", "", "data.toml: datasets: is missing or empty"),
        ("data.toml", "datasets = 3", "data.toml: datasets: must be an array of tables, got 3"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(read, name, text, message):
    (found,) = complaints(read, text, name)
    assert message in found


def test_a_missing_file_is_one_line(tmp_path):
    options = DataOptions(dataset_config=tmp_path / "no.toml")
    assert complaints(read_datasets, options) == [f"{tmp_path / 'no.toml'}: there is no such file"]


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
    assert complaints(read, text, resolution=(200, 1100)) == [
        "--min_bucket_reso: 256 is more than the resolution 200,1100; lower it",
        "--max_bucket_reso: 1024 is less than the resolution 200,1100; raise it",
    ]
    assert complaints(read, text, resolution=(512, 512), bucket_reso_steps=12) == [
        "--bucket_reso_steps: must be a multiple of 8 (64 suits every model), got 12"
    ]
    capsys.readouterr()
    read(text, resolution=(512, 512), min_bucket_reso=300)
    assert "--min_bucket_reso: 300 is rounded outwards to a multiple of 64" in capsys.readouterr().err
    read(text + "bucket_no_upscale = true", resolution=(200, 1100))


def test_without_buckets_the_resolution_must_be_encodable(read):
    text = '[[datasets]]\nresolution = 500\nsubsets = [{image_dir = "a"}]'
    assert complaints(read, text) == [
        "data.toml: dataset 1: resolution: sides must be multiples of 8, got 500,500"
    ]


def test_class_folders_give_repeats_and_tokens_and_dataset_repeats_multiplies_them(tmp_path, capsys):
    for name in ("img/10_sks dog", "img/2_a_b", "img/notes", "img/.hidden", "reg/1_dog"):
        (tmp_path / name).mkdir(parents=True)
    options = DataOptions(
        train_data_dir=tmp_path / "img", reg_data_dir=tmp_path / "reg", resolution=(64, 64), dataset_repeats=3
    )
    (dataset,) = read_datasets(options)
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
    options = DataOptions(train_data_dir=tmp_path / given, resolution=(64, 64))
    (found,) = complaints(read_datasets, options)
    assert found.startswith(f"--train_data_dir {tmp_path / given}: ")
    assert message in found


def test_in_json_is_a_fine_tuning_dataset_over_the_image_folder(tmp_path):
    options = DataOptions(train_data_dir=tmp_path, in_json=tmp_path / "m.json", resolution=(64, 64))
    (dataset,) = read_datasets(options)
    (subset,) = dataset.subsets
    assert not dataset.is_dreambooth
    assert (subset.image_dir, subset.metadata_file, subset.name) == (tmp_path, tmp_path / "m.json", "m.json")
