"""Captions as they are written, and captions from names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.options.captioning_tools import BLIP_WEIGHTS, BlipOptions, CaptionWordOptions
from library.preparation.captioning.words import caption_of_names, dressed, without_writing
from library.problems import UserError

DATA = Path(__file__).parents[3] / "data" / "preparation.json"
REMOVED = json.loads(DATA.read_text(encoding="utf-8"))["remove_words"]


@pytest.mark.parametrize(("caption", "rest"), REMOVED)
def test_writing_is_removed_as_by_sd_scripts_and_blanks_around_it_are_not_written(
    caption: str, rest: str
) -> None:
    assert without_writing(caption) == rest
    assert dressed(caption, CaptionWordOptions(remove_words=True)) == " ".join(rest.split())


def test_words_around_a_caption() -> None:
    words = CaptionWordOptions(
        trigger_word="sks cat", caption_prefix="photo of", caption_suffix=", high quality"
    )
    assert dressed(" a  cat\n", words) == "sks cat, photo of a cat, high quality"
    assert dressed("", CaptionWordOptions(trigger_word="sks")) == "sks"
    assert dressed("a cat that says hi", CaptionWordOptions()) == "a cat that says hi"


def test_captions_from_names() -> None:
    picture = Path("/x/10_red cat/01-on_the-roof (2).png")
    assert caption_of_names(picture, "file") == "on the roof"
    assert caption_of_names(picture, "folder") == "red cat"
    assert caption_of_names(picture, "both") == "red cat, on the roof"
    assert caption_of_names(Path("/x/猫/0001.png"), "both") == "猫"


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({}, "Salesforce/blip-image-captioning-large"),
        ({"caption_weights": "C:\\blip\\model_large_caption.pth"}, "Salesforce/blip-image-captioning-large"),
        (
            {"caption_weights": "x/model_base_caption_capfilt_large.pth"},
            "Salesforce/blip-image-captioning-base",
        ),
        ({"caption_weights": "my/folder"}, "my/folder"),
        ({"caption_weights": BLIP_WEIGHTS, "model_id": "a/b"}, "a/b"),
    ],
)
def test_blips_published_files_are_taken_from_the_hub(options: dict, model: str) -> None:
    assert BlipOptions(**options).model == model


def test_other_old_files_are_refused() -> None:
    with pytest.raises(UserError, match="--caption_weights: is no file that BLIP's authors published"):
        BlipOptions(caption_weights="mine.pth")
