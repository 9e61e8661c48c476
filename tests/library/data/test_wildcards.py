import itertools
import random
import re

import pytest

from library.data.wildcards import expand_wildcards


def outcomes(text, draws=300):
    """Every text that comes up in so many draws."""
    return {expand_wildcards(text, random.Random(i)) for i in range(draws)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {red|blue} cat", {"a red cat", "a blue cat"}),
        ("{a|{b|c} d}", {"a", "b d", "c d"}),
        ("{a|{b|c}}", {"a", "b", "c"}),
        ("{ {a|b}|c}", {" a", " b", "c"}),
        ("{w|{x|{y|z}}}", {"w", "x", "y", "z"}),
        ("{a|}", {"a", ""}),
        ("{|}", {""}),
        ("{a}", {"a"}),
        ("{}", {"{}"}),
        ("{{a|b}}", {"{a|b}"}),
        ("{{{a|b}}}", {"{a}", "{b}"}),
        ("{a|{b|{{c}}}}", {"a", "b", "{c}"}),
        ("{x}{{|}}{}", {"x{|}{}"}),
        ("a|b } c", {"a|b } c"}),
        ("{a|b", {"{a|b"}),
        ("{a|{b|c} d", {"{a|b d", "{a|c d"}),
        ("no braces", {"no braces"}),
    ],
)
def test_choices_nest_and_braces_without_partners_are_text(text, expected):
    assert outcomes(text) == expected


def flat_outcomes(text):
    """Choices that do not nest, as sd-scripts documents them: a brace, then anything but a closing one."""
    pieces = re.split(r"\{([^}]+)\}", text.replace("}}", "\x03"))
    options = [piece.split("|") if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return {"".join(choice).replace("\x03", "}") for choice in itertools.product(*options)}


def test_text_without_nested_choices_comes_out_as_in_sd_scripts():
    count = 0
    for length in range(7):
        for letters in itertools.product("{}|a", repeat=length):
            text = "".join(letters)
            if "{{" not in text and not re.search(r"\{[^}]*\{", text.replace("}}", "")):
                assert {expand_wildcards(text, random.Random(i)) for i in range(40)} == flat_outcomes(text)
                count += 1
    assert count > 1000


def test_each_alternative_is_as_likely_as_the_others():
    rng = random.Random(0)
    drawn = [expand_wildcards("{a|{b|c}|}", rng) for _ in range(6000)]
    shares = [drawn.count(text) / 6000 for text in ("a", "b", "c", "")]
    assert shares == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 3], abs=0.02)


def test_very_deep_choices_are_no_trouble():
    deep = "{a|" * 5000 + "b" + "}" * 5000
    assert outcomes(deep, draws=10) >= {"a"}
