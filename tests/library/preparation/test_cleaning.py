"""Cleaned tags and captions, against what sd-scripts makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.preparation.cleaning import clean_caption, clean_tags

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "preparation.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("text", "cleaned"), GOLDEN["clean_tags"])
def test_tags_are_cleaned_as_by_sd_scripts(text: str, cleaned: str) -> None:
    assert clean_tags(text) == cleaned


@pytest.mark.parametrize(("text", "cleaned"), GOLDEN["clean_captions"])
def test_captions_are_cleaned_as_by_sd_scripts(text: str, cleaned: str) -> None:
    assert clean_caption(text) == cleaned


# Rows of the golden values that hold a fault, kept as the default: text, its fault, and --whole_words.
TAG_FAULTS = [
    ("girls und panzer, blonde hair, brown hair", "nobody is counted", ...),
    ("1girl, >_<, o_o, ^_^, @_@", "faces lose their underscore", ...),
    ("1girl, rating, blush", "what follows a rating is cut", "1girl, blush"),
    ("1girl, smile, rating:safe, score:5", "what follows a rating is cut", "1girl, smile, score:5"),
    ("rating:safe, 1girl", "a first rating stays", "1girl"),
]
CAPTION_FAULTS = [
    ("a person personal trainer", "inside a word", "a girl personal trainer"),
    ("the ladybug is red", "inside a word", "the ladybug is red"),
    ("a businesswoman in Womanhood", "inside a word", "a businesswoman in Womanhood"),
]


@pytest.mark.parametrize(("text", "fault", "right"), TAG_FAULTS)
def test_whole_words_mends_what_is_wrong_with_tags(text: str, fault: str, right: object) -> None:
    right = text if right is ... else right
    assert clean_tags(text, whole_words=True) == right != dict(GOLDEN["clean_tags"])[text], fault


@pytest.mark.parametrize(("text", "fault", "right"), CAPTION_FAULTS)
def test_whole_words_mends_what_is_wrong_with_captions(text: str, fault: str, right: str) -> None:
    assert clean_caption(text, whole_words=True) == right != dict(GOLDEN["clean_captions"])[text], fault


def test_all_other_texts_are_the_same_with_whole_words() -> None:
    for cleaner, name, faults in (
        (clean_tags, "clean_tags", TAG_FAULTS),
        (clean_caption, "clean_captions", CAPTION_FAULTS),
    ):
        odd = [text for text, cleaned in GOLDEN[name] if cleaner(text, whole_words=True) != cleaned]
        assert sorted(odd) == sorted(text for text, _, _ in faults)


def test_a_hyphen_before_the_last_word_keeps_the_shorter_tag() -> None:
    assert clean_tags("shirt, see-through shirt") == "shirt, see-through shirt"
