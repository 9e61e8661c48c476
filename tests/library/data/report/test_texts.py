"""Captions as the page tells them."""

from __future__ import annotations

import re

import pytest

from library.data.report import texts
from library.data.report.texts import Look, first_samples, training_texts


def test_captions_are_tokenized_a_few_at_a_time(save_image, scan, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        save_image(f"train/1_x/{index}.png", caption=f"{'one ' * index}two three")
    blocks = []

    def word_ends(captions: list[str]) -> list[list[int]]:
        blocks.append(len(captions))
        return [[word.end() for word in re.finditer(r"\S+", caption)] for caption in captions]

    data = scan()
    look = Look(seed=0, token_ends=word_ends, max_tokens=4, total_steps=1, steps_per_epoch=1)
    whole = training_texts(data, look)
    monkeypatch.setattr(texts, "BLOCK", 2)
    assert training_texts(data, look) == whole
    assert blocks == [5, 2, 2, 1]
    assert [(entry.whole.tokens, entry.whole.read) for entry in whole] == [
        (2, len("two three")),
        (3, len("one two three")),
        (4, len("one one two three")),
        (5, len("one one one two")),
        (6, len("one one one one")),
    ]


def test_a_picture_is_shown_as_its_first_sample(save_image, scan) -> None:
    save_image("train/1_x/a.png", caption="a")
    save_image("train/3_x/b.png", caption="b")
    save_image("train/3_x/c.png", caption="c")
    assert first_samples(scan()) == {0: 0, 1: 1, 2: 4}
