"""Prompt lines that are wrong: each is one line with its place, in previews a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.generation.network_words import networks_in
from library.generation.prompt_options import generator_syntax, training_syntax
from library.generation.prompts import parse_prompt
from library.problems import UserError

# What each option refuses. Values may hold blanks; "" is none at all.
NUMBERS = ("", "x", "nan", "inf", "1..5", "1,5", "one", "0x10", "1e999", "--")
WHOLE = ("-1", "1.5", "1e2", "\uff19", "9" * 200, *NUMBERS)
WRONG = {
    "s": ("0", "1001", *WHOLE),
    "w": ("0", "7", "65", "999999", *WHOLE),
    "h": ("4", "63", *WHOLE),
    "d": ("1,", ",1", "1 2", "1;2", str(2**64), *(value for value in WHOLE if value != "1,5")),
    "l": tuple(value for value in NUMBERS if value != "1,5"),
    "nl": ("-1", "-0.5", "nothing", *(value for value in NUMBERS if value != "1,5")),
    "am": ("1,", ",", "1,x", "nan", "1;x", "", "inf,1"),
    "ow": ("0", *WHOLE),
    "oh": ("0", *WHOLE),
    "nw": ("0", *WHOLE),
    "nh": ("0", *WHOLE),
    "ct": WHOLE,
    "cl": WHOLE,
    "cn": ("", "a" * 5000, "~nobody-of-this-name/x.png"),
    "i": ("", "b" * 5000),
    "mask": ("",),
}
UNKNOWN = (
    "q",
    "steps",
    "width",
    "negative",
    "w=640",
    "W640",
    "am0.5",
    "ss\u200b",
    "x" * 300,
    "lora",
    "f00",
)
LINES = [f"a cat --{name} {value}" for name, values in WRONG.items() for value in values if value != "--"]
LINES += [f"a cat --{name} 1" for name in UNKNOWN]
LINES += [f"a --{name} 3 --{name} 3" for name in ("s", "l", "nl", "d", "am", "ct", "n", "c")]
# Lines that only look as if they had options, or had wrong brackets: text, whatever it is.
TEXTS = [
    "a cat--s x",
    "a cat --\u0435 1",
    "a cat -s x",
    "a cat –s 3",
    "a cat -- s 3",
    "a cat --7",
    "a <lora:x:1>",
    "a cat ---s 3",
    "(a",
    "a)",
    "[a",
    "a]",
    "(a:1.2.3)",
    "{a",
    "a}",
    "{}",
    "[a:b",
    "[a:b:c:d:1]",
    "AND",
    "a AND",
    "BREAK",
    "BREAKBREAK",
    "\\",
    "\\(",
    "a :x AND b",
    "((((",
    "))",
    "[[[[",
    "]]",
    "[|]",
    "(:)",
    "[:]",
    "<lora:>",
    "<lora",
    "a --",
    "--",
    " - ",
    "a ---",
    "a — b",
]
CHOICES = [
    "a {1-2-3$$a|b}",
    "{" * 60,
    "a --s {x|y}",
    "{e$$0-20$$" + "|".join("abcdefghijklmnopqrst") + "}",
]


def test_there_are_enough_of_them() -> None:
    assert len(set(LINES)) > 150
    assert len({*LINES, *TEXTS, *CHOICES}) > 200


@pytest.mark.parametrize("line", [*LINES, *CHOICES], ids=lambda line: line[:30])
def test_a_wrong_line_is_one_problem_with_its_place_and_a_warning_in_previews(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(UserError) as caught:
        parse_prompt(line, generator_syntax(8, networks_in(tmp_path)), where="prompts.txt, line 3")
    (problem,) = caught.value.problems
    assert problem.where.startswith("prompts.txt, line 3")
    assert len(str(problem)) < 600
    if line not in CHOICES:
        column = line.index("--", 6 if line.count("--") > 1 else 0) + 1
        assert problem.where == f"prompts.txt, line 3, column {column}"
        capsys.readouterr()
        # Previews round sizes, and have options of their own.
        request = parse_prompt(line, training_syntax(8), where="prompts.txt, line 3")
        told = capsys.readouterr().err
        assert request.prompt in ("a cat", "a")
        assert ("warning: prompts.txt, line 3, column " in told) or line.split()[2][2:] in ("w", "h")


@pytest.mark.parametrize("line", TEXTS)
def test_what_is_no_option_is_text(line: str) -> None:
    request = parse_prompt(line, generator_syntax(8), where="here")
    assert request.prompt == line.strip()
