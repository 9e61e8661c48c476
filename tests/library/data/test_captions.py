import random
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from library.data.captions import (
    caption_changing_setting,
    caption_lines,
    final_caption,
    is_random,
    kept_caption,
    sample_caption,
    used_lines,
    with_tags,
)
from library.data.templates import OBJECT_TEMPLATES, STYLE_TEMPLATES, templates_with
from library.randomness import keyed_random

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def draws(caption, subset, count=400, epoch=0):
    """The captions of `count` samples, with how often each comes."""
    return Counter(final_caption(caption, subset, random.Random(i), epoch=epoch) for i in range(count))


def test_a_plain_caption_stays_as_it_is(subset):
    assert not is_random(subset())
    assert final_caption("a  cat,on a mat ,", subset(), None, epoch=0) == "a  cat,on a mat ,"


def test_prefix_and_suffix_stand_around_the_caption_with_a_space(subset):
    settings = subset(caption_prefix="photo of", caption_suffix="8k")
    assert final_caption("a cat", settings, None, epoch=0) == "photo of a cat 8k"
    assert final_caption("", settings, None, epoch=0) == "photo of 8k"


def test_only_the_first_line_counts_without_wildcards(subset):
    assert final_caption("a cat\na dog", subset(), None, epoch=0) == "a cat"


def test_with_wildcards_each_line_and_each_choice_comes_up(subset):
    settings = subset(enable_wildcard=True)
    assert set(draws("a {red|blue} cat\n\na dog", settings)) == {"a red cat", "a blue cat", "a dog"}


def test_wildcards_work_in_the_prefix_too_and_doubled_braces_are_literal(subset):
    settings = subset(enable_wildcard=True, caption_prefix="{x|y}")
    assert set(draws("a {{cat}}", settings)) == {"x a {cat}", "y a {cat}"}


def test_shuffling_reaches_every_order_and_leaves_kept_tags_prefix_and_suffix_in_place(subset):
    settings = subset(shuffle_caption=True, keep_tokens=1, caption_prefix="P,", caption_suffix="S")
    found = draws("a, b,c , d", settings)
    orders = {"b, c, d", "b, d, c", "c, b, d", "c, d, b", "d, b, c", "d, c, b"}
    assert set(found) == {f"P, a, {order} S" for order in orders}


def test_tags_keep_their_own_separator(subset):
    settings = subset(shuffle_caption=True, caption_separator=";")
    assert set(draws("a, b; c", settings)) == {"a, b; c", "c; a, b"}


def test_empty_tags_vanish_when_tags_are_shuffled(subset):
    assert set(draws("a,,b, ", subset(shuffle_caption=True))) == {"a, b", "b, a"}


def test_the_keep_tokens_separator_marks_a_head_and_a_tail_and_never_stays_in_the_text(subset):
    settings = subset(shuffle_caption=True, keep_tokens_separator="|||")
    assert set(draws("h1, h2 ||| a, b ||| t", settings)) == {"h1, h2, a, b, t", "h1, h2, b, a, t"}
    settings = subset(keep_tokens_separator="|||")
    assert final_caption("h ||| a, b", settings, None, epoch=0) == "h, a, b"


def test_tag_dropout_spares_kept_tags_and_drops_at_its_rate(subset):
    settings = subset(caption_tag_dropout_rate=0.25, keep_tokens=1)
    found = draws("a, b, c", settings, count=4000)
    assert all(caption.split(", ")[0] == "a" for caption in found)
    kept = sum(count for caption, count in found.items() if "b" in caption)
    assert 0.72 < kept / 4000 < 0.78


def test_the_secondary_separator_holds_tags_together_and_becomes_the_separator(subset):
    settings = subset(shuffle_caption=True, secondary_separator=";;;")
    assert set(draws("a;;;b, c", settings)) == {"a,b, c", "c, a,b"}


def test_caption_dropout_gives_an_empty_text_without_prefix(subset):
    found = draws("a", subset(caption_dropout_rate=0.3, caption_prefix="P"), count=4000)
    assert set(found) == {"", "P a"}
    assert 0.27 < found[""] / 4000 < 0.33


@pytest.mark.parametrize(("every", "dropped"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [2, 5])])
def test_every_n_epochs_drops_the_nth_epoch_and_not_the_first(subset, every, dropped):
    settings = subset(caption_dropout_every_n_epochs=every)
    assert [e for e in range(6) if final_caption("a", settings, None, epoch=e) == ""] == dropped


def test_metadata_tags_follow_the_caption_and_survive_without_one():
    assert with_tags("a cat", "red, big", ",", every_line=False) == "a cat, red, big"
    assert with_tags("", "red, big", ",", every_line=True) == "red, big"
    assert with_tags("a cat", " ", ",", every_line=False) == "a cat"
    assert with_tags("a cat\na dog", "red", ",", every_line=True) == "a cat, red\na dog, red"
    assert with_tags("a cat\na dog", "red", ",", every_line=False) == "a cat, red"


def at_step(step, subset, *, total_steps=100, caption="k, a, b, c, d"):
    return final_caption(caption, subset, None, epoch=0, step=step, total_steps=total_steps)


def test_token_warm_up_begins_with_its_least_number_of_free_tags_and_ends_with_all(subset):
    settings = subset(token_warmup_step=8, token_warmup_min=1, keep_tokens=1)
    # floor(step * (4 - 1) / 8) + 1 of the four free tags
    counts = [len(at_step(step, settings).split(", ")) - 1 for step in range(10)]
    assert counts == [1, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    assert at_step(3, settings) == "k, a, b"


def test_a_token_warm_up_below_one_is_a_share_of_the_run(subset):
    settings = subset(token_warmup_step=0.25, token_warmup_min=0)
    steps = (0, 14, 15, 28, 29)  # 29 is floor(0.25 * 117)
    captions = [at_step(step, settings, total_steps=117, caption="a, b") for step in steps]
    assert captions == ["", "", "a", "a", "a, b"]
    assert at_step(0, settings, total_steps=3) == "k, a, b, c, d"  # no steps


def test_a_token_warm_up_with_more_tags_than_there_are_takes_them_all(subset):
    assert at_step(0, subset(token_warmup_step=8, token_warmup_min=9), caption="a, b") == "a, b"


def test_token_warm_up_takes_the_first_tags_and_then_they_are_shuffled(subset):
    settings = subset(token_warmup_step=10, token_warmup_min=2, shuffle_caption=True)
    found = {final_caption("a, b, c", settings, random.Random(i), epoch=0, step=1) for i in range(50)}
    assert found == {"a, b", "b, a"}


def test_the_whole_pipeline_in_its_order(subset):
    """Each part of the result shows that its step came where it belongs."""
    settings = subset(
        enable_wildcard=True,
        shuffle_caption=True,
        keep_tokens_separator="|||",
        caption_tag_dropout_rate=0.5,
        token_warmup_step=4,
        token_warmup_min=2,
        caption_prefix="{P, p}",
        caption_suffix="S;;;s",
        secondary_separator=";;;",
        caption_separator=",",
    )
    caption = "{h} ||| {a;;;b}, c, never ||| {t}"
    found = {
        final_caption(
            caption,
            settings,
            random.Random(i),
            epoch=0,
            step=1,
            total_steps=9,
        )
        for i in range(200)
    }
    middles = ("", "a,b, ", "c, ", "a,b, c, ", "c, a,b, ")
    assert found == {f"P, p h, {middle}t S,s" for middle in middles}


def test_a_dropped_caption_stays_empty_whatever_else_is_asked_for(subset):
    settings = subset(caption_dropout_rate=1.0, caption_prefix="P", enable_wildcard=True)
    rng = random.Random(0)
    assert final_caption("a", settings, rng, epoch=0, templates=("a photo of x",)) == ""


def test_a_caption_is_a_function_of_seed_epoch_and_sample(subset):
    settings = subset(shuffle_caption=True)
    key = {"seed": 3, "epoch": 2, "sample": 5, "step": 0, "total_steps": 1}
    caption = "a, b, c, d, e, f"
    rng = keyed_random(3, "caption", 2, 5)
    assert sample_caption(caption, settings, **key) == final_caption(caption, settings, rng, epoch=2)
    others = [sample_caption(caption, settings, **key | {name: 9}) for name in ("seed", "epoch", "sample")]
    assert len({*others, sample_caption(caption, settings, **key)}) == 4
    assert sample_caption(caption, settings, **key | {"step": 7, "total_steps": 9}) == sample_caption(
        caption, settings, **key
    )


def tags_of(caption, subset, sample, **more):
    key = {"seed": 1, "epoch": 0, "sample": sample, "step": 0, "total_steps": 1}
    return sample_caption(caption, subset, **key | more).split(", ")


def test_a_feature_that_is_switched_on_leaves_the_draws_of_the_others(subset):
    caption = ", ".join("abcdefgh")
    for sample in range(30):
        order = tags_of(caption, subset(shuffle_caption=True), sample)
        thin = tags_of(caption, subset(caption_tag_dropout_rate=0.3), sample)
        both = subset(shuffle_caption=True, caption_tag_dropout_rate=0.3, caption_dropout_rate=1e-9)
        assert tags_of(caption, both, sample) == [tag for tag in order if tag in thin]
        wild = subset(shuffle_caption=True, enable_wildcard=True)
        assert tags_of(caption, wild, sample) == order
        assert tags_of(caption.replace("a", "{a|A}"), wild, sample) in (order, [*map(upper_a, order)])
        warm = subset(shuffle_caption=True, token_warmup_step=10, token_warmup_min=3)
        assert tags_of(caption, warm, sample) == [tag for tag in order if tag in "abc"]


def upper_a(tag):
    return "A" if tag == "a" else tag


def test_the_kept_caption_is_the_one_of_every_epoch_without_dropout(subset):
    settings = subset(
        caption_dropout_rate=0.5,
        caption_dropout_every_n_epochs=1,
        caption_prefix="P,",
        enable_wildcard=True,
        keep_tokens_separator="|||",
        secondary_separator=";;;",
    )
    assert kept_caption("a ||| {b};;;{{c}}", settings) == "P, a, b,{c}"


def test_the_kept_caption_of_a_subset_that_changes_is_the_one_without_draws(subset):
    settings = subset(
        shuffle_caption=True,
        caption_tag_dropout_rate=1.0,
        token_warmup_step=0.5,
        enable_wildcard=True,
        caption_suffix="{S|s}",
    )
    assert kept_caption("a, {b|{c|d}},, e\nf", settings) == "a, b, e S"


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({}, None),
        ({"caption_dropout_rate": 0.5, "caption_dropout_every_n_epochs": 2, "caption_prefix": "p"}, None),
        ({"keep_tokens_separator": "|||", "secondary_separator": ";;;"}, None),
        ({"shuffle_caption": True, "token_warmup_step": 5}, "shuffle_caption"),
        ({"caption_tag_dropout_rate": 0.1, "enable_wildcard": True}, "caption_tag_dropout_rate"),
        ({"enable_wildcard": True}, "enable_wildcard"),
        ({"token_warmup_step": 0.5}, "token_warmup_step"),
    ],
)
def test_the_setting_that_makes_captions_change_is_named(subset, settings, setting):
    assert caption_changing_setting(subset(**settings)) == setting


def test_templates_take_the_place_of_the_caption_and_each_comes_up(subset):
    templates = templates_with("<cat> <dog>", OBJECT_TEMPLATES)
    found = {
        sample_caption(
            "anything", subset(), seed=0, epoch=0, sample=i, step=0, total_steps=1, templates=templates
        )
        for i in range(400)
    }
    assert found == {template.format("<cat> <dog>") for template in OBJECT_TEMPLATES}


def test_the_templates_are_different_sentences_with_one_place_each():
    for templates in (OBJECT_TEMPLATES, STYLE_TEMPLATES):
        assert len(set(templates)) == len(templates) == 20
        assert all(template.count("{}") == 1 and template == template.strip() for template in templates)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\r\nb\rc\nd", ["a", "b", "c", "d"]),
        ("\n \t\n", []),
        ("one\x0bline\x0cwith\x1call\x85of\u2028these\u2029in it\t", ["one line with all of these in it"]),
        ("\ufeffze\u200bro \u2060wi\xaddth\u200e", ["zero width"]),
        ("\u200b\ufeff", []),
        ("\xa0 a\xa0b \u3000", ["a\xa0b"]),
        ("می\u200cخواهم 👩\u200d🎨", ["می\u200cخواهم 👩\u200d🎨"]),
    ],
)
def test_lines_end_at_line_ends_only_and_what_no_eye_can_see_goes(text, lines):
    assert caption_lines(text) == lines
    assert used_lines(text, is_wildcard=False) == (lines[0] if lines else "")
    assert used_lines(text, is_wildcard=True) == "\n".join(lines)


def test_the_example_of_the_documentation_comes_out_as_it_says(subset):
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")
    example = page.partition("### An example")[2]
    (caption,) = re.findall(r"^sks dog .*$", example, re.MULTILINE)
    settings = tomllib.loads(re.search(r"```toml\n(.*?)```", example, re.DOTALL)[1])
    (options,) = settings["datasets"][0]["subsets"]
    del options["image_dir"]
    result = re.findall(r"\| secondary separator \| `(.*)` \|", example)
    found = {
        sample_caption(caption, subset(**options), seed=0, epoch=0, sample=i, step=50, total_steps=999)
        for i in range(200)
    }
    assert result == ["photo, sks dog, grass, red,blue collar"] and found.issuperset(result)
    assert not any("sitting" in text for text in found)
