"""What a model is asked, and how its answers become one prediction."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import torch

from library.generation.guidance import Guidance, questions_of, rows_of
from library.generation.request import PromptRequest
from library.models.base import Condition

CAT = PromptRequest("a cat", "blurry", width=64, height=32, scale=3.0, original_height_negative=5)
DOG = PromptRequest("a dog", "ugly", width=64, height=32, scale=2.0)


def test_a_guided_picture_is_asked_about_with_its_negative_prompt_first() -> None:
    assert [question[:3] for question in questions_of(CAT)] == [
        ("blurry", (5, 64, 0, 0, 32, 64), 1.0),
        ("a cat", (32, 64, 0, 0, 32, 64), 3.0),
    ]


def test_with_a_negative_scale_a_picture_is_asked_about_with_the_empty_text_first() -> None:
    sizes, negative_sizes = (32, 64, 0, 0, 32, 64), (5, 64, 0, 0, 32, 64)
    assert [question[:3] for question in questions_of(replace(CAT, negative_scale=2.0))] == [
        ("", negative_sizes, 1.0),
        ("blurry", negative_sizes, -2.0),
        ("a cat", sizes, 3.0),
    ]


def test_a_negative_scale_leads_away_from_the_negative_prompt() -> None:
    """u + l (c - u) - nl (n - u)"""
    requests = [replace(CAT, negative_scale=2.0), replace(DOG, negative_scale=0.5)]
    answers = torch.tensor([1.0, 2.0, 30.0, 40.0, 500.0, 600.0])

    def predict(x, t, condition):
        return answers.view(6, 1, 1, 1).expand(x.shape)

    guidance = Guidance.by(SimpleNamespace(predict=predict), Condition(torch.zeros(6, 77, 8)), requests)
    found = guidance.predict(torch.zeros(2, 4, 4, 8), torch.tensor(901), 0.0)
    assert found[:, 0, 0, 0].tolist() == [1 + 3 * 499 - 2 * 29, 2 + 2 * 598 - 0.5 * 38]


def test_without_guidance_the_negative_prompt_is_not_asked_about() -> None:
    plain = PromptRequest("a cat", "blurry", scale=1.0)
    assert [question.text for question in questions_of(plain)] == ["a cat"]


def test_rows_are_every_pictures_first_question_and_then_the_second() -> None:
    assert [row.text for row in rows_of([CAT, DOG])] == ["blurry", "ugly", "a cat", "a dog"]


def test_each_picture_is_guided_by_its_own_scale() -> None:
    asked = []

    def predict(x, t, condition):
        asked.append((x.dtype, x.shape, t.tolist(), condition.sizes[:, 0].tolist()))
        return torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1).expand(x.shape).to(x.dtype)

    condition = Condition(torch.zeros(4, 77, 8, dtype=torch.bfloat16))
    guidance = Guidance.by(SimpleNamespace(predict=predict), condition, [CAT, DOG])
    found = guidance.predict(torch.zeros(2, 4, 4, 8), torch.tensor(901), 0.0)
    assert (found.dtype, found.shape) == (torch.float32, (2, 4, 4, 8))
    assert found[:, 0, 0, 0].tolist() == [1 + 3 * (3 - 1), 2 + 2 * (4 - 2)]
    assert asked == [(torch.bfloat16, (4, 4, 4, 8), [901] * 4, [5, 32, 32, 32])]
