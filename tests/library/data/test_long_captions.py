"""Captions and metadata of any length take time in proportion to it.

Eight times the text may take up to `MOST` times as long: 8 is linear, 64 is quadratic.
"""

import json
import random
import time

import pytest

from library.data.captions import final_caption
from library.data.tags import tags_of
from library.data.wildcards import expand_wildcards
from library.models.prompt_weights import LARGEST_WEIGHT, parse_weights
from library.problems import UserError

MOST = 25
BRACKETS = {
    "brackets never closed": ("(a", ""),
    "square brackets never closed": ("[a", ""),
    "brackets that close": ("(a", ")"),
    "weights that close": ("(a", ":1.3)"),
    "brackets of both kinds": ("(a[b", ""),
    "brackets that cross": ("([a", ")]"),
    "closing brackets": ("a)]", ""),
    "colons": ("(a:1", ""),
    "digits": ("1", ""),
    "dots": ("1.", ""),
    "escapes": ("\\", ""),
}
CHOICES = {
    "choices never closed": ("{a", ""),
    "alternatives never closed": ("{a|b", ""),
    "choices in choices": ("{a|", "}"),
    "choices of one": ("{a", "}"),
    "choices side by side": ("{a|b}", ""),
    "doubled braces": ("{ {{", ""),
    "closing braces": ("}", ""),
    "bars": ("|", ""),
}
TAGS = {
    "tags": ("a, ", ""),
    "tags of their own": ("{number}, ", ""),
    "tags in braces": ("{a, ", "}"),
    "lines": ("a\n", ""),
    "lines of their own": ("{number}\n", ""),
    "separators": ("a||| ", ""),
}
PARTS = BRACKETS | CHOICES | TAGS
KINDS = {"weights": BRACKETS, "choices": CHOICES, "the whole pipeline": TAGS, "counting tags": CHOICES | TAGS}


def text_of(kind, count):
    opening, closing = PARTS[kind]
    if "{number}" in opening:
        return "".join(opening.replace("{number}", str(number)) for number in range(count))
    text = "(:" * (kind == "digits") + opening * count + "x" + closing * count
    return text + "y" * 5000  # so that it is too long to be kept from one call to the next


def seconds(work, text):
    times = []
    for _ in range(2):
        start = time.thread_time()
        work(text)
        times.append(time.thread_time() - start)
    return min(times)


@pytest.fixture(scope="module")
def works(tmp_path_factory):
    from library.data.config.specs import DEFAULTS, SUBSET_KEYS, SubsetSpec

    settings = {key: DEFAULTS.get(key) for key in SUBSET_KEYS}
    settings |= {"shuffle_caption": True, "caption_tag_dropout_rate": 0.1, "keep_tokens_separator": "|||"}
    plain, wild = SubsetSpec(**settings), SubsetSpec(**settings | {"enable_wildcard": True})
    return {
        "weights": parse_weights,
        "choices": lambda text: expand_wildcards(text, random.Random(1)),
        "the whole pipeline": lambda text: final_caption(text, wild, random.Random(1), epoch=0),
        "counting tags": lambda text: (tags_of(text, plain), tags_of(text, wild)),
    }


@pytest.mark.parametrize("work", KINDS)
def test_eight_times_the_caption_takes_about_eight_times_as_long(works, work):
    slow = {}
    for kind in KINDS[work]:
        short, long = (seconds(works[work], text_of(kind, count)) for count in (1000, 8000))
        if long > 0.02 and long > MOST * short:
            slow[kind] = (short, long)
    assert slow == {}


def test_long_runs_of_brackets_and_braces_are_read_at_once(works):
    start = time.thread_time()
    parse_weights("(a[b" * 50_000)
    expand_wildcards("{a|b" * 50_000, random.Random(1))
    assert time.thread_time() - start < 8


def test_weights_are_bounded():
    assert parse_weights("(" * 5000 + "a") == [("a", LARGEST_WEIGHT)]
    assert parse_weights("(a:" + "9" * 400 + ")") == [("a", LARGEST_WEIGHT)]
    assert parse_weights("(a:-" + "9" * 400 + ")") == [("a", -LARGEST_WEIGHT)]
    assert parse_weights("[" * 9000 + "a") == [("a", pytest.approx(0.0))]


def test_brackets_of_two_kinds_may_cross():
    (a, wa), (b, wb), (c, wc) = parse_weights("(a[b)c]")
    assert (a, b, c) == ("a", "b", "c")
    assert (wa, wb, wc) == pytest.approx((1.1, 1.0, 1 / 1.1))


@pytest.mark.parametrize(
    ("entries", "cause"),
    [
        (
            {"a": {"caption": "x\n" * 20_000, "tags": "y" * 20_000}},
            "1 of 1 entries have captions of more than",
        ),
        ({"a": {"tags": "y" * 1_000_001}}, "1 of 1 entries have captions of more than"),
        ({"/" + "a/" * 500_000: {"tags": "y"}}, "no image was found for 1 of 1 entries"),
    ],
    ids=["lines times tags", "tags", "key"],
)
def test_metadata_that_would_grow_without_bound_is_one_line(save_image, scan, tmp_path, entries, cause):
    save_image("img/a.png")
    (tmp_path / "m.json").write_text(json.dumps(entries))
    with pytest.raises(UserError) as caught:
        scan(in_json=tmp_path / "m.json", train_data_dir=tmp_path / "img", enable_wildcard=True)
    (problem,) = caught.value.problems
    assert cause in str(problem) and len(str(problem)) < 600
