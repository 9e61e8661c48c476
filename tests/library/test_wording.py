"""Numbers of things in words."""

from library.problems import Problem
from library.wording import counted, one_line, plural, shortened


def test_one_is_not_several() -> None:
    assert [counted(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(1, "image is", "images are") == "1 image is"
    assert counted(3, "image is", "images are") == "3 images are"
    assert [plural(count, "is", "are") for count in (1, 2)] == ["is", "are"]


def test_long_texts_are_cut() -> None:
    assert [shortened(text, 5) for text in ("abcde", "abcdef")] == ["abcde", "ab..."]


def test_nothing_in_a_name_breaks_a_line_or_moves_the_cursor() -> None:
    assert one_line("a\nb\x85c\u2028d\x1b[31me\u202ef") == "a\\nb\\x85c\\u2028d\\x1b[31me\\u202ef"
    kept = "my\u3000pictures\u00a0\u00e9 \U0001f600 C:\\new"
    assert one_line(kept) == kept
    assert len(str(Problem("x.safetensors", "lacks a\x0b.alpha", "get it\x1c again")).splitlines()) == 1
