"""Prompts that are typed in, or made by a module of one's own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from library.generation.prompt_options import generator_syntax
from library.generation.prompts import parse_prompt
from library.generation.request import PromptRequest
from library.generation.sources import check_prompter, converse, draw_for_module
from library.problems import UserError


def read(line: str, where: str, seed: int) -> list[PromptRequest]:
    from library.generation.plan import plan_pictures

    return plan_pictures([parse_prompt(line, generator_syntax(8), where=where)], seed=seed)


def test_a_mistake_is_told_and_the_next_prompt_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines = "a cat\n\n# a remark\nb --s many\nc --q 1\na {red|green\\} dog --d 5\n\u00e4 bird --s 3"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    drawn: list[tuple[str, int | None, int]] = []

    def draw(pictures: Sequence[PromptRequest]) -> None:
        drawn.extend((one.prompt, one.seed, one.steps) for one in pictures)
        if pictures[0].prompt == "a cat":
            raise SystemExit(1)  # as a picture without numbers

    converse(read, draw, seed=42)
    assert drawn[0] == ("a cat", 42, 30)
    assert drawn[1][:2] == ("a {red|green} dog", 5)
    assert drawn[2][0] == "\u00e4 bird"
    assert len({seed for _, seed, _ in drawn}) == 3
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "prompt 2, column 3: --s expects a whole number from 1 to 1000, got 'many'"
    assert told[1].startswith("prompt 3, column 3: there is no prompt option --q; there are ")
    assert len(told) == 2


def test_a_stop_while_drawing_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    with pytest.raises(SystemExit) as end:
        converse(read, lambda pictures: (_ for _ in ()).throw(SystemExit(130)), seed=1)
    assert end.value.code == 130


MODULE = """
def get_prompter(args, pipe, networks):
    def prompter(args, pipe, seed_random, iter_seed, prompt_index, global_step):
        if prompt_index == 2:
            return None
        word = seed_random.choice(["cat", "dog", "bird", "cow", "horse"])
        return f"{args['style']} {pipe} {len(networks)} {prompt_index} {global_step} {word}"
    return prompter
"""


def drawn_by(path: Path, seed: int = 7) -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    draw_for_module(
        path,
        read,
        lambda pictures: found.extend((one.prompt, one.seed) for one in pictures),
        given=({"style": "oil"}, "model", ["one"]),
        seed=seed,
        rounds=2,
    )
    return found


def test_a_module_makes_prompts_round_by_round_until_it_says_none(tmp_path: Path) -> None:
    path = tmp_path / "prompter.py"
    path.write_text(MODULE)
    check_prompter(path)
    found = drawn_by(path)
    starts = ["oil model 1 0 0", "oil model 1 1 1", "oil model 1 0 2", "oil model 1 1 3"]
    assert [text.rpartition(" ")[0] for text, _ in found] == starts
    assert found[0][1] == 7
    assert len({seed for _, seed in found}) == 4
    assert drawn_by(path) == found != drawn_by(path, seed=8)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "there is no such Python file; give --from_module a .py file"),
        ("x = 1", "has no function get_prompter(args, pipe, networks)"),
        ("x = ", "fails: SyntaxError: "),
        ("def get_prompter(*a): return 3", "get_prompter gave nothing that can be called"),
        ("def get_prompter(*a): raise OSError('gone')", "fails: OSError: gone"),
        ("def get_prompter(*a): return lambda *b: 3", "gave 3 as a prompt, which is no text"),
        ("def get_prompter(*a): return lambda *b: 1 / 0", "fails: ZeroDivisionError: division by zero"),
        ("def get_prompter(*a): return lambda *b: 'a --s x'", "--s expects a whole number"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_line(tmp_path: Path, content: str | None, cause: str) -> None:
    path = tmp_path / "prompter.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="^.*$") as caught:
        drawn_by(path)
    (problem,) = caught.value.problems
    assert str(problem).partition(": ")[2].startswith(cause)
    assert str(path) in str(problem)
