"""Prompt editing, and prompts of several parts."""

from __future__ import annotations

import time
from itertools import groupby

import pytest

from library.generation.editing import sub_prompts, texts_by_step


def changes(text: str, steps: int = 10) -> list[tuple[int, str]]:
    """Each text with the last step in a row that has it."""
    found, last = [], 0
    for one, group in groupby(texts_by_step(text, steps)):
        last += len(list(group))
        found.append((last, one))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|b]", [(step, "ab"[(step - 1) % 2]) for step in range(1, 11)]),
        ("[fe|]male", [(step, ("female", "male")[(step - 1) % 2]) for step in range(1, 11)]),
        (
            "[fe|||]male",
            [(1, "female"), (4, "male"), (5, "female"), (8, "male"), (9, "female"), (10, "male")],
        ),
        ("[a:1.2]", [(1, ""), (10, "a")]),
        ("[a:b:1.0]", [(1, "a"), (10, "b")]),
        ("[a:b:0.29]", [(2, "a"), (10, "b")]),
        ("[a::3]", [(3, "a"), (10, "")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-1]", [(10, "b")]),
        ("[a:b:10]", [(10, "a")]),
        ("[a:b:99]", [(10, "a")]),
        ("([a:b:5] c:1.3)", [(5, "(a c:1.3)"), (10, "(b c:1.3)")]),
        ("[x [a|b]:c:2]", [(1, "x a"), (2, "x b"), (10, "c")]),
        ("[a (x [y:3])]", [(3, "[a (x )]"), (10, "[a (x y)]")]),
        ("[{a|b}:5]", [(5, ""), (10, "{a|b}")]),
    ],
)
def test_a_prompt_changes_from_step_to_step(text: str, expected: list[tuple[int, str]]) -> None:
    assert changes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a [unbalanced",
        "[x]",
        "[[x]]",
        "[x",
        "x]",
        "[]",
        "[(a:0.5]",
        "[a:b:c:3]",
        "\\[a:b:3\\]",
        "[a:b]",
        "[a:b:c]",
    ],
)
def test_what_is_no_editing_stays_as_it_is(text: str) -> None:
    assert changes(text) == [(10, text)]


@pytest.mark.parametrize(
    "text", ["[" * 60_000 + "a:1]", "[a|" * 20_000, "[a:" * 20_000 + "]" * 20_000, "[a:3]" * 9000]
)
def test_long_prompts_are_read_at_once(text: str) -> None:
    started = time.thread_time()
    assert len(texts_by_step(text, 20)) == 20
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("at 10:30", [("at 10:30", 1.0)]),
        ("a cat AND a dog", [("a cat", 1.0), ("a dog", 1.0)]),
        ("a cat :0.5 AND a dog:-1.5 AND x:y", [("a cat", 0.5), ("a dog", -1.5), ("x:y", 1.0)]),
        ("SAND and HANDS", [("SAND and HANDS", 1.0)]),
        ("(a:1.2) AND", [("(a:1.2)", 1.0), ("", 1.0)]),
    ],
)
def test_parts_of_a_prompt_have_weights(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert sub_prompts(prompt) == expected
