"""Which pictures are drawn, in which order and with which seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from library.generation.plan import plan_pictures
from library.generation.prompt_options import generator_syntax
from library.generation.prompts import parse_prompt
from library.generation.request import PromptRequest
from library.options.drawing_prompts import GeneratorOrderOptions
from library.problems import UserError


def prompt(line: str) -> PromptRequest:
    return parse_prompt(line, generator_syntax(8), where="here")


def test_a_single_picture_uses_the_seed_of_the_run_as_it_is() -> None:
    assert plan_pictures([PromptRequest("a")], seed=7) == [PromptRequest("a", seed=7)]


def test_the_seeds_of_a_prompt_win_and_go_to_its_first_pictures() -> None:
    prompt = PromptRequest("a", seed=5, more_seeds=(6, 7))
    planned = plan_pictures([prompt], seed=1, n_iter=2, images_per_prompt=2)
    assert [request.seed for request in planned[:3]] == [5, 6, 7]
    assert planned[3].seed not in (5, 6, 7)
    assert all(request.more_seeds == () for request in planned)


def test_every_picture_has_its_own_seed_whatever_follows_it() -> None:
    prompts = [PromptRequest("a"), PromptRequest("b"), PromptRequest("c")]
    few = plan_pictures(prompts[:2], seed=1, images_per_prompt=2)
    many = plan_pictures(prompts, seed=1, n_iter=3, images_per_prompt=2)
    assert [request.prompt for request in many] == ["a", "a", "b", "b", "c", "c"] * 3
    assert many[:4] == few
    assert len({request.seed for request in many}) == 18
    assert all(0 <= request.seed < 2**31 for request in many)
    assert plan_pictures(prompts, seed=2)[0].seed != many[0].seed


def test_choices_are_made_for_each_picture_by_its_own_seed() -> None:
    read = prompt("a {red|green} cat --d 2,3,4,5 --w {512|768}")
    planned = plan_pictures([read], seed=1, images_per_prompt=4)
    assert {one.prompt for one in planned} == {"a red cat", "a green cat"}
    assert sorted(one.width for one in planned) == [512, 512, 768, 768]
    assert [one.seed for one in planned] == [2, 3, 4, 5]
    again = plan_pictures([prompt("x"), prompt("a {red|green} cat --d 5 --w {512|768}")], seed=9)[1]
    assert again == planned[3]


def test_what_is_enumerated_shares_a_seed_and_the_next_picture_has_another() -> None:
    planned = plan_pictures([prompt("{e$$a|b} {e$$c|d} --d 7,8")], seed=1, images_per_prompt=2)
    assert [one.prompt for one in planned] == ["a c", "a d", "b c", "b d"] * 2
    assert [one.seed for one in planned] == [7] * 4 + [8] * 4


def test_what_was_decided_since_a_prompt_was_read_stays_when_its_choices_are_made() -> None:
    read = replace(prompt("{e$$a|b} --w {512|512} --h 64"), hints=(Path("edges.png"),), width=640)
    planned = plan_pictures([read], seed=1)
    assert [(one.prompt, one.width, one.height, one.hints) for one in planned] == [
        (text, 640, 64, (Path("edges.png"),)) for text in "ab"
    ]


@pytest.mark.parametrize("first", ["64", "65"])
def test_a_choice_that_cannot_be_used_is_found_wherever_it_stands(first: str) -> None:
    second = {"64": "65", "65": "64"}[first]
    with pytest.raises(UserError) as caught:
        plan_pictures([prompt(f"a --w {{{first}|{second}}}")], seed=1, images_per_prompt=8)
    (problem,) = caught.value.problems
    assert str(problem) == "here, column 3: --w expects a size in pixels, a multiple of 8, got '65'"


def test_all_prompts_of_a_round_may_have_one_seed() -> None:
    order = GeneratorOrderOptions(iter_same_seed=True)
    prompts = [PromptRequest("a"), PromptRequest("b", seed=3), PromptRequest("c")]
    first, own, third, *later = plan_pictures(prompts, seed=42, n_iter=2, order=order)
    assert (first.seed, own.seed, third.seed) == (42, 3, 42)
    assert later[0].seed == later[2].seed != 42
    assert plan_pictures(prompts, seed=42, n_iter=3, order=order)[3:6] == later


def test_a_shuffled_prompt_keeps_its_seeds_and_every_round_has_an_order_of_its_own() -> None:
    prompts = [PromptRequest(letter) for letter in "abcdefgh"]
    plain = plan_pictures(prompts, seed=1, n_iter=2)
    shuffled = plan_pictures(prompts, seed=1, n_iter=2, order=GeneratorOrderOptions(shuffle_prompts=True))
    assert shuffled != plain
    assert [one.prompt for one in shuffled[:8]] != [one.prompt for one in shuffled[8:]]
    for rounds in (slice(8), slice(8, 16)):
        by_name = sorted(shuffled[rounds], key=lambda one: one.prompt)
        assert by_name == plain[rounds]
