"""Dataset files that cannot be used: one Problem each, with the file, the cause and what to do."""

from pathlib import Path

import pytest
from bad_texts import bad_configs, make_good_images
from dataset_files import SIZE, complaints, tables
from stand_ins import LATENTS

from library.data.config.datasets import read_datasets
from library.data.training_data import TrainingData
from library.options.caching import CachingOptions
from library.options.data import DataOptions
from library.problems import Problems, UserError


@pytest.mark.parametrize("what", bad_configs(Path("images")))
def test_a_bad_dataset_file_is_one_problem_with_file_cause_and_fix(scan, tmp_path, what):
    make_good_images(tmp_path / "images")
    bad = bad_configs(tmp_path / "images")[what]
    path = tmp_path / bad.name
    path.write_bytes(bad.content)
    with pytest.raises(UserError) as caught:
        scan(dataset_config=path)
    (problem,) = caught.value.problems
    assert bad.name in problem.where or what in ("no size", "a folder that is not there")
    assert bad.cause in problem.cause
    assert bad.fix in problem.fix


def test_there_are_enough_of_them():
    assert len(bad_configs(Path("images"))) >= 9


def test_every_mistake_of_a_file_is_named_with_its_line_and_table(read):
    text = """\
extra = 1
[general]
shufle_caption = true
keep_tokens = "many"
image_dir = "x"
[[datasets]]
resolution = [64]
batch_size = 0
Cache-Info = true
[[datasets.subsets]]
image_dir = "a"
flip_aug = 2
resolution = 64
resize_interpolation = "area51"
caption_dropout_rate = 1.5
seed = 3
[[datasets.subsets]]
is_reg = true
[[datasets]]
[[datasets.subsets]]
metadata_file = "m.json"
is_reg = true
[[datasets]]
subsets = []
"""
    choices = "lanczos, nearest, bilinear, linear, bicubic, cubic, area"
    assert complaints(read, text) == [
        "data.toml:1: extra: there is no such key; there are: general, datasets",
        "data.toml:3: general: shufle_caption: there is no such key; did you mean shuffle_caption?",
        "data.toml:5: general: image_dir: belongs in [[datasets.subsets]]; move it there",
        "data.toml:4: general: keep_tokens: is 'many'; it expects a whole number",
        "data.toml:9: dataset 1: Cache-Info: there is no such key; did you mean cache_info?",
        "data.toml:13: dataset 1, subset 1: resolution: belongs in [[datasets]] or [general]; move it there",
        "data.toml:16: dataset 1, subset 1: seed: is an option of the command, not of a dataset; give it on"
        " the command line or in the --config_file",
        "data.toml:12: dataset 1, subset 1: flip_aug: is 2; it expects true or false",
        f"data.toml:14: dataset 1, subset 1: resize_interpolation: is 'area51'; it expects one of {choices}",
        "data.toml:17: dataset 1, subset 2: needs image_dir; the folder with its images",
        "data.toml:22: dataset 2, subset 1: is_reg: means nothing in a dataset of metadata files; remove it",
        "data.toml:24: dataset 3: subsets: is missing or empty; add [[datasets.subsets]]",
        "data.toml:8: dataset 1: batch_size: is 0; it must be 1 or more",
        "data.toml:15: dataset 1, subset 1: caption_dropout_rate: is 1.5; it is a probability: 0 to 1",
        "--resolution: is needed; give the size to train at, such as 512 or 512,768",
    ]


def test_a_table_of_a_wrong_name_has_its_line_too(read):
    text = '[general]\nresolution = 64\n\n[[dataset]]\n[[dataset.subsets]]\nimage_dir = "a"\n'
    assert complaints(read, text) == ["data.toml:4: dataset: there is no such key; did you mean datasets?"]


def test_lines_are_not_guessed_where_a_text_of_several_lines_may_hold_anything(read):
    text = '[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nimage_dir = "a"\n'
    text += 'caption_prefix = """\nflip_aug = 1\n"""\nflip_aug = 2\n'
    assert complaints(read, text) == [
        "data.toml: dataset 1, subset 1: flip_aug: is 2; it expects true or false"
    ]


@pytest.mark.parametrize(
    ("key", "where", "fix"),
    [
        ("train_batch_size", "dataset", "did you mean batch_size?"),
        ("dataset_repeats", "subset", "did you mean num_repeats?"),
        ("caption_extention", "subset", "did you mean caption_extension?"),
        ("train_data_dir", "dataset", "did you mean image_dir? it belongs in [[datasets.subsets]]"),
        ("reg_data_dir", "subset", "make a subset of the folder, with is_reg = true"),
        (
            "learning_rat",
            "general",
            "did you mean the option --learning_rate? give it on the command line or in the --config_file",
        ),
        ("qwertz", "subset", "the keys are in docs/datasets.md"),
    ],
)
def test_a_key_of_another_name_leads_to_the_right_one(read, key, where, fix):
    content = tables("dreambooth", **{where: {key: "x" if "dir" in key else 1}})
    lines = complaints(read, content, resolution=SIZE)
    assert lines[0].endswith(f": {key}: there is no such key; {fix}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.yaml", "", "data.yaml: is neither a .toml nor a .json file; rename or rewrite it"),
        ("data.toml", "a = = 1", "data.toml:1: is not valid TOML: Invalid value; mend this line: a = = 1"),
        ("data.toml", "[a", "is not valid TOML: Expected ']' at the end of a table declaration"),
        (
            "data.toml",
            "[general]\ncaption_prefix = photo",
            "data.toml:2: is not valid TOML: Invalid value; text stands in quotes: caption_prefix = photo",
        ),
        ("data.toml", "caption_prefix = “a”", "use straight quotes, \" or '"),
        ("data.json", "{", "data.json:1: is not valid JSON: Expecting property name"),
        ("data.json", "{'a': 1}", 'use straight double quotes, "'),
        ("data.json", '{"a": True}', "write true, false and null in small letters"),
        ("data.json", "[]", 'data.json: is an array, not an object; write {"datasets": [...]}'),
        ("data.json", "[" * 100_000, "data.json: has tables in tables without end"),
        ("data.toml", "", "data.toml: datasets: is missing or empty; add [[datasets]]"),
        ("data.toml", "datasets = 3", "datasets: is 3, not an array of tables; write [[datasets]]"),
        ("data.toml", "datasets = [3]", "dataset 1: is 3, not a table; write [[datasets]] above its keys"),
        ("data.toml", "general = 3", "data.toml: general: is 3, not a table; write its keys below it"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(read, name, text, message):
    assert message in complaints(read, text, name)[0]


def test_texts_that_are_not_text_are_refused(read):
    content = tables("dreambooth", subset={"caption_prefix": "a\0", "caption_suffix": "\ud800"})
    where, end = "data.json: dataset 1, subset 1: caption_", ", which holds what is not text; write it anew"
    assert complaints(read, content, resolution=SIZE) == [
        f"{where}prefix: is 'a\\x00'{end}",
        f"{where}suffix: is '\\ud800'{end}",
    ]


def test_a_missing_file_is_one_line(tmp_path):
    options = DataOptions(dataset_config=tmp_path / "no.toml")
    assert complaints(read_datasets, options, pixel_multiple=8) == [
        f"{tmp_path / 'no.toml'}: there is no such file; it was looked for in {tmp_path}"
    ]


BOUNDS = [
    ("train_batch_size", 0, "must be 1 or more"),
    ("min_bucket_reso", 0, "must be 1 or more"),
    ("caption_separator", "", "must not be empty"),
    ("caption_dropout_rate", 1.5, "is a probability: 0 to 1"),
    ("caption_tag_dropout_rate", -0.5, "is a probability: 0 to 1"),
    ("ucg", 2.0, "is a probability: 0 to 1"),
    ("token_warmup_min", -1, "must be 0 or more"),
    ("token_warmup_step", -1, "must be 0 (no warm-up) or more"),
    ("validation_split", 1.0, "must be 0 or more and below 1"),
]


@pytest.mark.parametrize(("name", "value", "bound"), BOUNDS)
def test_the_bounds_of_a_dataset_file_hold_on_the_command_line_too(tmp_path, name, value, bound):
    (tmp_path / "1_x").mkdir()
    options = DataOptions(train_data_dir=tmp_path, resolution=SIZE, **{name: value})
    assert complaints(read_datasets, options, pixel_multiple=8) == [f"--{name}: is {value!r}; it {bound}"]


def test_images_are_looked_at_also_where_a_setting_is_out_of_bounds(save_image, tmp_path):
    save_image("train/1_x/a.png")
    options = DataOptions(
        train_data_dir=tmp_path / "train", resolution=SIZE, train_batch_size=0, caption_separator=""
    )
    problems = Problems()
    data = TrainingData.collect(options, CachingOptions(), problems, latent_space=LATENTS)
    assert [problem.where for problem in problems.found] == ["--train_batch_size", "--caption_separator"]
    assert data.image_count == data.batches_per_epoch(1) == 1


def test_a_metadata_file_has_no_conditioning_images_wherever_it_is_asked_for(read, tmp_path):
    content = tables("finetuning", subset={"conditioning_data_dir": "c"})
    (line,) = complaints(read, content, resolution=SIZE)
    assert line.endswith("metadata_file: means nothing in a dataset of conditioning images; remove it")
    folders = {"train_data_dir": tmp_path, "conditioning_data_dir": tmp_path, "masked_loss": True}
    assert complaints(DataOptions, in_json=tmp_path / "m.json", **folders) == [
        "--conditioning_data_dir: cannot be combined with --in_json: only image folders have conditioning"
        " images"
    ]
