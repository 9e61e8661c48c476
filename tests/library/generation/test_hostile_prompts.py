"""Prompt lines and files that are made to hurt: one line each, at once."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fuzzing import fuzz
from hypothesis import strategies as st

from library.generation.prompt_options import PromptSyntax, generator_syntax, training_syntax
from library.generation.prompts import parse_prompt, read_prompts
from library.problems import UserError, without_warnings

GENERATOR, TRAINING = generator_syntax(8), replace(training_syntax(8), is_lenient=False)
HUGE = 10**7

LINES = {
    "--s " + "9" * 5000: "--s expects a whole number from 1 to 1000, got '" + "9" * 57 + "...'",
    "--l " + "9" * 5000: "--l expects a number, got '" + "9" * 57 + "...'",
    "--d " + "1," * 20_000: "--d expects a whole number of 0 or more, got '" + "1," * 28 + "1...'",
    "--w " + "8" * 40: "--w expects a size in pixels",
    "--s \uff19": "--s expects a whole number from 1 to 1000, got '\uff19'",
    "--s \u00b2": "--s expects a whole number from 1 to 1000, got '\u00b2'",
    "--s 1e2": "--s expects a whole number from 1 to 1000, got '1e2'",
    "--s -1": "--s expects a whole number from 1 to 1000, got '-1'",
    "--l 1e999": "--l expects a number, got '1e999'",
    "--l nan": "--l expects a number, got 'nan'",
    "--w=640": "there is no prompt option --w=640; there are ",
    "--" + "x" * 5000: "there is no prompt option --" + "x" * 57 + "...; there are ",
    "a\0b": "holds a zero byte or half a character, which is no text; remove it",
    "--n \udcff": "holds a zero byte or half a character, which is no text; remove it",
    "--s 1 " * 9000: "--s is given twice",
    "a" * HUGE: "is 10,000,002 characters long; a prompt has at most 65,536",
    " --" * HUGE: "is 30,000,002 characters long; a prompt has at most 65,536",
}
JSON_FILES = {
    "[" * 100_000: "has tables in tables without end",
    '[{"a":' * 100_000: "has tables in tables without end",
    "[" + "1" * 5000 + "]": "has a number of thousands of digits; write a smaller one",
    "1": "is a number; write an array of them",
    "{}": "is an object; write an array of them",
    '"a"': "is a text; write an array of them",
    "[]": "holds no prompts; write an array of them",
    "[null]": "prompt 1: is null, not a prompt",
    "[[]]": "prompt 1: is an array, not a prompt",
    "[{}]": 'prompt 1: has no prompt; write prompt: "a cat"',
    '[{"prompt": ["a"]}]': 'prompt 1: has no prompt; write prompt: "a cat"',
    '[{"prompt": "a", "width": {"a": 1}}]': "prompt 1: width is an object, not a text or a number",
    '[{"prompt": "a", "seed": true}]': "prompt 1: seed expects a whole number of 0 or more, got 'True'",
    '[{"prompt": "a", "scale": NaN}]': "prompt 1: scale expects a number, got 'nan'",
    '[{"prompt": "a\\u0000"}]': "prompt 1: holds a zero byte or half a character",
    '["\\ud800"]': "prompt 1: holds a zero byte or half a character",
    '[{"prompt": "a", "' + "k" * HUGE + '": 1}]': "prompt 1: a prompt has no key "
    + "k" * 57
    + "...; there are",
    '["' + "a" * HUGE + '"]': "prompt 1: is 10,000,000 characters long",
    "[{" + ",".join(f'"{i}": 1' for i in range(50_000)) + ', "7": 1}]': '"7" is there twice in one object',
}
TOML_FILES = {
    "a = " + "[" * 100_000: "has tables in tables without end",
    "[" + ".".join("a" * 50_000) + "]": "has tables in tables without end",
    ".".join("a" * 50_000) + " = 1": "has tables in tables without end",
    "a = {" + '"b" . ' * 50_000 + "c = 1}": "has tables in tables without end",
    "a = [\n" + "0.5, 'b.png', " * 5_000 + "]": "a is no table of prompts",
    'a = """\n' + "..." * 50_000 + '"""': "a is no table of prompts",
    "prompt = 1": "prompt is no table of prompts; write a [[prompt.subset]] for each",
    "[[prompt]]": "prompt is no table of prompts; write a [[prompt.subset]] for each",
    "[prompt]\nsubset = 1": "prompt.subset is one table; write [[prompt.subset]], with two brackets",
    "[prompt]\nsubset = [1]": "prompt 1: is a number, not a prompt",
    "[[prompt.subset]]\nprompt = 1": 'prompt 1: has no prompt; write prompt: "a cat"',
    '[[prompt.subset]]\nprompt = "a"\nwidth = 0x'
    + "f" * 9000: "prompt 1: width expects a size in pixels, got '0xf",
    '[[prompt.subset]]\nprompt = "a"\nwidth = ' + "1" * 9000: "has a number of thousands of digits",
    "#" * HUGE: "holds no prompts; write a [[prompt.subset]] for each",
    "a" * HUGE: "is not valid TOML: ",
}
OTHER_FILES = {
    b"": "holds no prompts; write one a line",
    b"\n# a\n \n": "holds no prompts; write one a line",
    b"a\0b": "is not text: a zero byte at offset 1; save it as UTF-8",
    b"caf\xe9": "is not UTF-8 text: byte 0xe9 at offset 3; save it as UTF-8",
    b"\xff\xfea": "is not UTF-16 text: byte 0x61 at offset 2; save it as UTF-8",
    b"a" * HUGE: "line 1: is 10,000,000 characters long; a prompt has at most 65,536",
}


def only_problem(path: Path) -> str:
    """The one problem of a prompt file, found at once."""
    started = time.thread_time()
    with pytest.raises(UserError) as caught:
        read_prompts(path, TRAINING)
    assert time.thread_time() - started < 4  # 10 MB take less than one second on an idle machine
    (problem,) = caught.value.problems
    assert len(str(problem)) < 700  # it lists what there is
    return str(problem)


def number_of(case: object) -> str:
    return repr(case)[:20]


@pytest.mark.parametrize("line", LINES, ids=number_of)
@pytest.mark.parametrize("syntax", [TRAINING, GENERATOR], ids=["previews", "generator"])
def test_a_hostile_line_has_one_problem(line: str, syntax: PromptSyntax) -> None:
    with without_warnings(), pytest.raises(UserError) as caught:
        parse_prompt(f"a {line}", syntax, where="here")
    (problem,) = caught.value.problems
    place = "here, column [0-9]+: " if LINES[line].startswith(("--", "there is")) else "here: "
    assert re.match(place + re.escape(LINES[line]), str(problem))
    assert len(str(problem)) < 400


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        *((".json", content.encode(), expected) for content, expected in JSON_FILES.items()),
        *((".toml", content.encode(), expected) for content, expected in TOML_FILES.items()),
        *((".txt", content, expected) for content, expected in OTHER_FILES.items()),
    ],
    ids=number_of,
)
def test_a_hostile_file_has_one_problem(tmp_path: Path, suffix: str, content: bytes, expected: str) -> None:
    path = tmp_path / f"prompts{suffix}"
    path.write_bytes(content)
    assert expected in only_problem(path)


def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe.txt", tmp_path / "loop.toml"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    assert "is a pipe or device" in only_problem(pipe)
    assert "cannot be read" in only_problem(loop)
    assert "is a folder, not a file" in only_problem(tmp_path)
    assert "there is no such file" in only_problem(tmp_path / "missing.json")
    assert "cannot be read (File name too long)" in only_problem(tmp_path / ("x" * 300 + ".txt"))


@pytest.mark.parametrize(
    "piece", ["<lora:", "--7 ", "-w 1 ", "\u2014w\t1 ", "<lora:a:1>", "--", " -", " --n x"]
)
def test_long_lines_are_read_at_once(piece: str) -> None:
    line, started = "a " + piece * (65_000 // len(piece)), time.thread_time()
    with without_warnings():
        try:
            parse_prompt(line, TRAINING, where="here")
        except UserError as error:
            assert len(error.problems) <= 21
    assert time.thread_time() - started < 1  # of the processor; 20 to 80 ms


PIECES = st.sampled_from(
    [
        " --",
        "--",
        "-",
        "\u2014",
        " ",
        "\t",
        "\u00a0",
        "w",
        "s",
        "d",
        "n",
        "ss",
        "cn",
        "640",
        "1e9",
        "<lora:",
        ":1>",
        ",",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=30).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS, lambda v: st.lists(v, max_size=3)
)


@pytest.mark.long
def test_any_line_is_a_request_or_problems() -> None:
    def trial(example: tuple[str, PromptSyntax]) -> None:
        line, syntax = example
        with without_warnings():
            try:
                parse_prompt(line, syntax, where="here")
            except UserError as error:
                assert error.problems

    fuzz(trial, st.tuples(TEXTS, st.sampled_from([TRAINING, GENERATOR])))


FILES = (
    st.binary(max_size=200)
    | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(st.dictionaries(st.sampled_from(["prompt", *TRAINING.keys]) | TEXTS, VALUES) | VALUES).map(
        lambda entries: json.dumps(entries).encode()
    )
)


@pytest.mark.long
def test_any_file_is_requests_or_problems(tmp_path: Path) -> None:
    def trial(example: tuple[bytes, str]) -> None:
        content, suffix = example
        path = tmp_path / f"prompts{suffix}"
        path.write_bytes(content)
        with without_warnings():
            try:
                read_prompts(path, TRAINING)
            except UserError as error:
                assert error.problems

    fuzz(trial, st.tuples(FILES, st.sampled_from([".txt", ".json", ".toml"])))
