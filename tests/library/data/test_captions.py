import random
from collections import Counter

import pytest

from library.data.captions import expand_wildcards, final_caption, is_random, with_tags


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


def test_wildcards_do_not_nest():
    assert expand_wildcards("{a}}", random.Random(0)) == "{a}"
    assert expand_wildcards("{x}{{|}}{}", random.Random(0)) == "x{|}{}"


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
