"""Which texts are preserved: words for the trigger, in the finished caption."""

from __future__ import annotations

import pytest

from library.data.preservation import Preservation, Words
from library.options.preservation import PreservationOptions
from library.problems import UserError

KEYS = {"seed": 1, "epoch": 0, "sample": 0}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of sks dog", "a photo of dog"),
        ("SKS running, (sks:1.2) smiling", "dog running, (dog:1.2) smiling"),
        ("sks  dog and another sks", "dog and another dog"),
        ("sksy, a_sks, my-sks", "sksy, a_sks, my-dog"),
        ("a photo of a dog", None),
        ("sks dogs", "dog dogs"),
    ],
)
def test_whole_words_are_replaced_and_the_class_behind_goes_with_them(
    caption: str, expected: str | None
) -> None:
    assert Preservation("class").text(caption, "sks dog", **KEYS) == expected


def test_words_of_options_win_over_the_folders_and_may_be_phrases() -> None:
    asked = Preservation("class", "my [v] cat", ("a lion", "a tiger"))
    found = {asked.text("see My  [V] cat dog", "sks dog", seed=1, epoch=0, sample=n) for n in range(20)}
    assert found == {"see a lion", "see a tiger"}  # dog, the folder's class, goes with the trigger
    assert Words("c++", ("x",), ()).replaced("c++ c++y", 0.0) == "x xy"


def test_the_same_word_stands_everywhere_in_a_caption_and_depends_on_the_key() -> None:
    asked = Preservation("class", "sks", ("dog", "cat", "cow"))
    texts = [asked.text("sks and sks", None, seed=1, epoch=epoch, sample=3) for epoch in range(30)]
    assert set(texts) == {f"{word} and {word}" for word in ("dog", "cat", "cow")}
    assert texts[4] == asked.text("sks and sks", None, seed=1, epoch=4, sample=3)


def test_dropped_captions_and_those_without_the_trigger_preserve_nothing() -> None:
    assert Preservation("blank").text("", None, **KEYS) is None
    assert Preservation("blank").text("anything", None, **KEYS) == ""
    assert Preservation("class").text("sks dog", None, **KEYS) is None  # nobody says what it is
    both = Preservation("both", "sks", ("dog",))
    found = [both.text("a sks", None, seed=1, epoch=0, sample=n) for n in range(100)]
    assert set(found) == {"", "a dog"} and 30 < found.count("") < 70


def test_a_share_of_the_steps_is_due_by_the_key() -> None:
    asked = Preservation("blank", share=0.25)
    due = [asked.is_due(7, step) for step in range(400)]
    assert 70 < sum(due) < 130 and due == [asked.is_due(7, step) for step in range(400)]
    assert all(Preservation("blank").is_due(7, step) for step in range(10))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"preserve": "class", "preserve_trigger": "sks", "preserve_class": ("dog", "SKS")},
            "names the trigger",
        ),
        ({"preserve": "class", "preserve_trigger": " "}, "--preserve_trigger: is blank"),
        ({"preserve": "class", "preserve_class": ("dog", "")}, "--preserve_class: has a blank word"),
        ({"preserve": "blank", "preserve_weight": -1}, "--preserve_weight: must be 0 or more"),
        ({"preserve": "blank", "preserve_share": 0}, "--preserve_share: must be above 0, to 1"),
    ],
)
def test_wrong_options_are_one_line(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        PreservationOptions(**options)


def test_options_without_effect_are_warned_of(capsys: pytest.CaptureFixture) -> None:
    PreservationOptions(preserve_class=("dog",))
    PreservationOptions(preserve="blank", preserve_trigger="sks")
    told = capsys.readouterr().err
    assert "--preserve_class has no effect without --preserve" in told
    assert "--preserve_trigger has no effect with --preserve blank" in told
