"""Dynamic prompts: which texts the choices of a prompt give."""

from __future__ import annotations

import json
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest

from library.generation.dynamic import chosen_texts, wildcards_in
from library.generation.prompt_options import generator_syntax
from library.generation.prompts import parse_prompt
from library.problems import UserError

GRAMMAR = Path(__file__).parents[2] / "data" / "prompt_grammar.json"
ROWS = json.loads(GRAMMAR.read_text(encoding="utf-8"))["dynamic_prompts"]
# What sd-scripts draws by chance: everything that may come, as ours draws by a hash of the seed.
PAIRS = {", ".join(pair) for pair in permutations("abc", 2)}
RANDOM = {
    "a {red|green|blue} cat": {f"a {colour} cat" for colour in ("red", "green", "blue")},
    "{a|b} and {c|d|e}": {f"{one} and {other}" for one in "ab" for other in "cde"},
    "{2$$a|b|c}": PAIRS,
    "{1-2$$a|b|c}": {*"abc", *PAIRS},
    "{2-1$$a|b|c}": {*"abc", *PAIRS},
    "{3$$ and $$a|b|c}": {" and ".join(three) for three in permutations("abc")},
    "{0-1$$a|b}": {"", "a", "b"},
    "{$$ and $$a|b}": {"a", "b"},
    "{a|{b|c}}": {"a", "b", "c"},
    "{a|{b|{c|d}} e}": {"a", "b e", "c e", "d e"},
    "{a|b} --w {512|768}": {f"{one} --w {width}" for one in "ab" for width in (512, 768)},
    "{long text here | other , text}": {"long text here ", " other , text"},
    "{2$$, $$a|b|c} {1$$x|y}": {f"{pair} {one}" for pair in PAIRS for one in "xy"},
    "{a|a|a|b}": {"a", "b"},
    "\\{a|b\\} {c|d}": {"{a|b} c", "{a|b} d"},
    "{e$$a|b} {x|y}": {"a x", "b x", "a y", "b y"},
    "{x|y} {e$$a|b}": {"x a", "x b", "y a", "y b"},
}
# Rows that hold its faults: what it does, and what comes here.
FAULTS = {
    "{5$$a|b}": ("crashes", {"a, b", "b, a"}),
    "{2$$a}": ("crashes", {"a"}),
    "{-1$$a|b}": ("crashes", {"a", "b"}),
    "{1-2-3$$a|b}": ("reads 1-2", set()),
    "{$$a|b}": ("gives $$a", {"a", "b"}),
    "{e$${a|b}|c}": ("never ends", {"a", "b", "c"}),
    "\\{a|b\\}": ("crashes", {"{a|b}"}),
    "{a|}": ("never takes the empty alternative", {"a", ""}),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["prompt"])
def test_a_prompt_gives_what_it_gives_in_sd_scripts(row: dict) -> None:
    prompt = row["prompt"]
    if prompt in FAULTS:
        return  # below
    for seed in range(30):
        texts = chosen_texts(prompt, seed)
        if prompt in RANDOM:
            assert set(texts) <= RANDOM[prompt]
            assert set(row["prompts"]) <= RANDOM[prompt]
        else:
            # There an enumeration comes once for each picture of a prompt; here `plan_pictures` sees to it.
            assert texts * (len(row["prompts"]) // len(texts)) == row["prompts"]


@pytest.mark.parametrize(
    ("prompt", "expected"), [*RANDOM.items(), *((one, texts) for one, (_, texts) in FAULTS.items() if texts)]
)
def test_by_chance_everything_comes_and_nothing_else(prompt: str, expected: set[str]) -> None:
    assert {text for seed in range(300) for text in chosen_texts(prompt, seed)} == expected


@pytest.mark.parametrize("many", [2, 3, 5])
def test_seeds_in_a_row_take_different_alternatives(many: int) -> None:
    prompt = "{" + "|".join("abcde"[:many]) + "}"
    for block in range(20):
        texts = {chosen_texts(prompt, many * block + seed)[0] for seed in range(many)}
        assert len(texts) == many
    assert len({chosen_texts(prompt, seed)[0] for seed in (1, 2, 3)}) > 1


def test_two_choices_do_not_go_together() -> None:
    found = Counter(chosen_texts("{a|b}{c|d}", seed)[0] for seed in range(400))
    assert found.keys() == {"ac", "ad", "bc", "bd"}
    assert min(found.values()) > 60


def test_a_choice_stays_when_another_is_written_behind_it() -> None:
    for seed in range(30):
        (one,), (two,) = chosen_texts("{a|b|c}", seed), chosen_texts("{a|b|c} {d|e}", seed)
        assert two.startswith(one)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{2-$$a|b|c}", PAIRS | {", ".join(three) for three in permutations("abc")}),
        ("{-2$$a|b|c}", {*"abc", *PAIRS}),
        ("{{a|b}|c}", {"a", "b", "c"}),
        ("{0::a|b}", {"b"}),
        ("{2$$+$$2::a|b}", {"a+b", "b+a"}),
        ("{1.5::{a|b}|c}", {"a", "b", "c"}),
        ("{2$${a|b}|c}", {"a, c", "b, c", "c, a", "c, b"}),
        ("{a$$b|c}", {"a$$b", "c"}),
    ],
)
def test_counts_weights_and_nesting(prompt: str, expected: set[str]) -> None:
    assert {text for seed in range(300) for text in chosen_texts(prompt, seed)} == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{e$${e$$a|b}|c}", ["a", "b", "c"]),
        ("{e$$2$$-$${e$$a|b}|c|d}", ["a-c", "b-c", "a-d", "b-d", "c-d"]),
        ("{e$$0-1$$a|b}", ["", "a", "b"]),
        ("{E$$3::a|b}", ["a", "b"]),
        ("x{e$$a|}", ["xa", "x"]),
    ],
)
def test_enumerations_nest(prompt: str, expected: list[str]) -> None:
    assert chosen_texts(prompt, 5) == expected


def test_a_weight_says_how_often() -> None:
    found = Counter(chosen_texts("{3::a|b}", seed)[0] for seed in range(1000))
    assert 700 < found["a"] < 800


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{" * 60_000, "choices in at most 50 others"),
        ("{1-2-3$$a|b}", "a count such as"),
        ("{e$$" + "|".join("a" * 200) + "}{e$$" + "|".join("b" * 200) + "}", "at most 10,000 prompts"),
        ("{e$$0-30$$" + "|".join("abcdefghijklmnopqrstuvwxyz") + "}", "at most 10,000 prompts"),
    ],
    ids=["deep", "count", "product", "combinations"],
)
def test_what_cannot_be_read_is_said(prompt: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        chosen_texts(prompt, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Wildcards: one with a comment, one with choices and another wildcard, one that is in itself."""
    (tmp_path / "colours.txt").write_text("red\n# a comment\n\ngreen\nblue\n", encoding="utf-8")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "cats.txt").write_text("{big|small} __colours__ cat\n3::no cat\n", encoding="utf-8")
    (tmp_path / "loop.txt").write_text("x __loop__", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("# nothing\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a __colours__ cat", {f"a {colour} cat" for colour in ("red", "green", "blue")}),
        ("{2$$ and $$__colours__}", {f"{a} and {b}" for a, b in permutations(("red", "green", "blue"), 2)}),
        ("{__colours__|x}", {"red", "green", "blue", "x"}),
        (
            "a __sets/cats__",
            {"a no cat", *(f"a {a} {b} cat" for a in ("big", "small") for b in ("red", "green", "blue"))},
        ),
        ("____ __", {"____ __"}),
    ],
)
def test_a_wildcard_is_a_line_of_its_file(prompt: str, expected: set[str], folder: Path) -> None:
    find = wildcards_in(folder)
    assert {one for seed in range(200) for one in chosen_texts(prompt, seed, find)} == expected
    assert chosen_texts("a __colours__ cat", 1) == ["a __colours__ cat"]  # without a folder it is text


def test_wildcards_are_enumerated(folder: Path) -> None:
    assert chosen_texts("{e$$__colours__}", 0, wildcards_in(folder)) == ["red", "green", "blue"]


def test_a_wildcard_that_is_not_there_is_said_with_its_place(folder: Path) -> None:
    syntax = generator_syntax(8, find_wildcard=wildcards_in(folder))
    assert parse_prompt("a __colours__ cat", syntax, where="x").chosen(7)[0].prompt in (
        "a red cat",
        "a green cat",
        "a blue cat",
    )
    for prompt, line in {
        "a __color__": "x: expects a wildcard's name: there is no color.txt in",
        "__../colours__": "there is no ../colours.txt",
        "__empty__": "expects a wildcard with lines",
        "__loop__": "expects wildcards in at most 50 others",
    }.items():
        with pytest.raises(UserError, match=line.replace("(", "\\(")):
            parse_prompt(prompt, syntax, where="x")
