"""Tags are counted as they are trained (`ss_tag_frequency`)."""

import json

import pytest

from library.data.tags import count_tags, tags_of

CASES = {
    "commas": ({}, ["Cat, red", "cat,,", ""], {"cat": 2, "red": 1}),
    "twice in one caption": ({}, ["cat, cat"], {"cat": 2}),
    "separator": ({"caption_separator": ";"}, ["a cat, red; big ;", "big"], {"a cat, red": 1, "big": 2}),
    "space": ({"caption_separator": " "}, ["a  cat"], {"a": 1, "cat": 1}),
    "secondary separator": (
        {"secondary_separator": ";;;"},
        ["sky;;;blue, cat"],
        {"sky": 1, "blue": 1, "cat": 1},
    ),
    "both separators": (
        {"caption_separator": "|", "secondary_separator": "&"},
        ["sky & blue | cat"],
        {"sky": 1, "blue": 1, "cat": 1},
    ),
    "prefix and suffix": (
        {"caption_prefix": "Best,", "caption_suffix": ", 8k"},
        ["cat", ""],
        {"best": 2, "cat": 1, "8k": 2},
    ),
    "prefix without a separator": (
        {"caption_prefix": "photo of"},
        ["cat, red"],
        {"photo of cat": 1, "red": 1},
    ),
    "keep_tokens_separator": (
        {"keep_tokens_separator": "|||", "shuffle_caption": True},
        ["1girl ||| a, b ||| last"],
        {"1girl": 1, "a": 1, "b": 1, "last": 1},
    ),
    "shuffling and dropping": (
        {"shuffle_caption": True, "caption_tag_dropout_rate": 0.9},
        ["a, b"],
        {"a": 1, "b": 1},
    ),
    "warm-up": ({"token_warmup_step": 9}, ["a, b"], {"a": 1, "b": 1}),
    "first line": ({}, ["a, b\nc"], {"a": 1, "b": 1}),
    "braces without wildcards": ({}, ["{a, b|c}"], {"{a": 1, "b|c}": 1}),
    "wildcards as written": (
        {"enable_wildcard": True},
        ["{red, dark|blue} car, {x|{y, z|w}}, sun"],
        {"{red, dark|blue} car": 1, "{x|{y, z|w}}": 1, "sun": 1},
    ),
    "braces without partners": (
        {"enable_wildcard": True},
        ["}a, {b, {c, d|e}"],
        {"}a": 1, "{b": 1, "{c, d|e}": 1},
    ),
    "alternative lines": (
        {"enable_wildcard": True},
        ["cat, red\ncat, cat, blue"],
        {"cat": 2, "red": 1, "blue": 1},
    ),
    "a choice in the prefix": (
        {"enable_wildcard": True, "caption_prefix": "{a|b},"},
        ["c"],
        {"{a|b}": 1, "c": 1},
    ),
}


@pytest.mark.parametrize(("options", "captions", "expected"), CASES.values(), ids=CASES)
def test_tags_are_counted_as_they_are_trained(subset, options, captions, expected):
    assert count_tags(captions, subset(**options)) == expected


def test_single_tags_keep_their_case(subset):
    assert tags_of("Cat, cat", subset()) == {"Cat": 1, "cat": 1}


def test_a_folder_counts_under_its_own_name_also_through_a_link(save_image, scan, tmp_path):
    save_image("elsewhere/x/a.png", caption="cat")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "2_dog").symlink_to(tmp_path / "elsewhere" / "x")
    data = scan()
    assert data.tag_frequency() == {"2_dog": {"cat": 1}}
    assert data.dirs() == {"2_dog": {"n_repeats": 2, "img_count": 1}}


def test_a_metadata_file_counts_captions_with_their_tags_under_its_name(save_image, scan, tmp_path):
    save_image("img/a.png")
    (tmp_path / "m.json").write_text(json.dumps({"a": {"caption": "A cat", "tags": "red;;;big, red"}}))
    data = scan(in_json=tmp_path / "m.json", train_data_dir=tmp_path / "img", secondary_separator=";;;")
    assert data.tag_frequency() == {"m.json": {"a cat": 1, "red": 2, "big": 1}}
