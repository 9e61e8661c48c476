import codecs
from pathlib import Path

import pytest

from library.problems import UserError
from library.text_files import read_text

TEXT = "Katze, über Straße\r\nzweite Zeile\r"
JAPANESE = "猫, 犬"


@pytest.fixture
def read(tmp_path):
    """read(bytes) -> the text of a file with these bytes."""

    def write_and_read(content, **limits):
        path = tmp_path / "a.txt"
        path.write_bytes(content)
        return read_text(path, **limits)

    return write_and_read


def complaint(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
def test_what_says_clearly_what_it_is_gets_read_with_its_line_ends(read, mark, encoding):
    assert read(mark + TEXT.encode(encoding)) == TEXT
    if mark or encoding == "utf-8":
        assert read(mark + JAPANESE.encode(encoding)) == JAPANESE


@pytest.mark.parametrize("content", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF8 * 3])
def test_nothing_but_a_mark_is_an_empty_text(read, content):
    assert read(content) == ""


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("caf\xe9".encode("cp1252"), "is not UTF-8 text: byte 0xe9 at offset 3"),
        (JAPANESE.encode("shift-jis"), "is not UTF-8 text: byte 0x94 at offset 0"),
        (codecs.BOM_UTF8 + b"ab\xff", "is not UTF-8 text: byte 0xff at offset 5"),
        ("über".encode()[:1], "is not UTF-8 text: byte 0xc3 at offset 0"),
        (codecs.BOM_UTF16_LE + b"a\0b", "is not UTF-16 text: byte 0x62 at offset 4"),
        (codecs.BOM_UTF16_BE + b"\0a\xd8\0", "is not UTF-16 text: byte 0xd8 at offset 4"),
        (codecs.BOM_UTF32_LE + b"a\0\0\0\0\0\0\xff", "is not UTF-32 text: byte 0x00 at offset 8"),
        (b"cat\0", "is not text: a zero byte at offset 3"),
        (b"c\0", "is not text: a zero byte at offset 1"),
        (b"a\0b\0c", "is not text: a zero byte at offset 1"),
        ("猫 a".encode("utf-16-be"), "is not text: a zero byte at offset 2"),
        (codecs.BOM_UTF16_LE + "猫\0".encode("utf-16-le"), "is not text: a zero byte at offset 4"),
        (codecs.BOM_UTF8 + "é\0".encode(), "is not text: a zero byte at offset 5"),
    ],
)
def test_what_is_not_text_is_a_problem_with_the_offset_and_never_guessed(read, tmp_path, content, cause):
    problem = complaint(read, content)
    assert (problem.where, problem.cause, problem.fix) == (
        str(tmp_path / "a.txt"),
        cause,
        "save it as UTF-8",
    )


def test_a_file_may_be_as_long_as_it_is_allowed_to_be(read, tmp_path):
    assert read(b"x" * 1000, longest=1000) == "x" * 1000
    problem = complaint(read, b"x" * 1001, longest=1000)
    assert problem.cause == "is longer than 1,000 bytes" and problem.fix


def test_a_file_that_is_not_there_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.json").touch()
    assert str(complaint(read_text, tmp_path / "caption.json")) == (
        f"{tmp_path / 'caption.json'}: there is no such file; did you mean {tmp_path / 'captions.json'}?"
    )
    missing = Path("x.toml")
    assert str(complaint(read_text, missing)) == (
        f"x.toml: there is no such file; it was looked for in {tmp_path}"
    )
    missing = Path("sub/x.toml")
    assert str(complaint(read_text, missing)) == (
        f"{missing}: there is no such file; there is no folder {tmp_path / 'sub'} either"
    )


def test_a_folder_is_not_a_text_file(tmp_path):
    problem = complaint(read_text, tmp_path)
    assert problem.cause == "is a folder, not a file" and problem.fix
