"""Captions that cannot be used, and odd ones that can."""

import codecs

import pytest
from bad_texts import bad_captions, make_bad_captions

from library.data.summary import warning_lines
from library.problems import UserError


def problems_of(scan):
    with pytest.raises(UserError) as caught:
        scan()
    return caught.value.problems


@pytest.mark.parametrize("what", bad_captions())
def test_a_bad_caption_is_one_problem_with_file_cause_and_fix(save_image, scan, what):
    bad = bad_captions()[what]
    save_image("train/1_x/good.png", caption="fine")
    path = save_image("train/1_x/bad.png").with_name(bad.name)
    path.write_bytes(bad.content)
    (problem,) = problems_of(scan)
    assert problem.where == str(path)
    assert problem.cause == bad.cause
    assert problem.fix.startswith(bad.fix)


def test_all_bad_captions_of_a_folder_are_found_in_one_pass(save_image, scan, tmp_path):
    save_image("train/1_x/good.png", caption="fine")
    made = make_bad_captions(tmp_path / "train" / "1_x")
    assert len(made) >= 12
    found = {problem.where: problem.cause for problem in problems_of(scan)}
    assert found == {str(path): bad.cause for path, bad in made.items()}


ODD = {
    "utf-8 with a mark": (codecs.BOM_UTF8 + "Käse".encode(), "Käse"),
    "two marks": (codecs.BOM_UTF8 * 2 + b"cat", "cat"),
    "utf-16 with a mark": ("Käse, 猫".encode("utf-16"), "Käse, 猫"),
    "big-endian": (codecs.BOM_UTF16_BE + "猫".encode("utf-16-be"), "猫"),
    "utf-16 without a mark, beyond doubt": ("a café".encode("utf-16-le"), "a café"),
    "utf-32": (codecs.BOM_UTF32_LE + "猫".encode("utf-32-le"), "猫"),
    "Windows line ends": (b"\r\n  first \r\nsecond\r\n", "first"),
    "old Mac line ends": (b"first\rsecond", "first"),
    "form feed and line separators": ("a\fb\u2028c\x85d".encode(), "a b c d"),
    "zero-width characters": ("\u200bca\u200bt\ufeff ".encode(), "cat"),
    "spaces of all kinds around": ("\u3000\xa0 a cat\t \n".encode(), "a cat"),
    "a picture sign of several characters": ("👩\u200d🎨 paints".encode(), "👩\u200d🎨 paints"),
    "half a megabyte": (b"cat, " * 100_000, ("cat, " * 100_000).strip()),
}
EMPTY = {"nothing": b"", "a mark": codecs.BOM_UTF8, "spaces": b" \n\t\r\n", "zero width": "\u200b".encode()}


@pytest.mark.parametrize("what", ODD)
def test_odd_but_clear_captions_are_read(save_image, scan, what):
    content, caption = ODD[what]
    save_image("train/1_x/a.png").with_suffix(".caption").write_bytes(content)
    data = scan()
    assert [record.caption for record in data.records] == [caption]
    assert not any("empty" in line for line in warning_lines(data))


def test_captions_of_nothing_visible_are_empty_and_counted(save_image, scan):
    for number, content in enumerate(EMPTY.values()):
        save_image(f"train/1_x/{number}.png").with_suffix(".caption").write_bytes(content)
    data = scan()
    assert [record.caption for record in data.records] == [""] * len(EMPTY)
    assert any(f"{len(EMPTY)} captions are empty" in line for line in warning_lines(data))
