"""Numbers of things in words."""

from library.wording import counted, plural, shortened


def test_one_is_not_several() -> None:
    assert [counted(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(1, "image is", "images are") == "1 image is"
    assert counted(3, "image is", "images are") == "3 images are"
    assert [plural(count, "is", "are") for count in (1, 2)] == ["is", "are"]


def test_long_texts_are_cut() -> None:
    assert [shortened(text, 5) for text in ("abcde", "abcdef")] == ["abcde", "ab..."]
