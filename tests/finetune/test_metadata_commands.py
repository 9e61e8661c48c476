"""Captions and tags of folders -> metadata files, cleaned; what is replaced can be put back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from commands import call
from PIL import Image

from finetune import (
    clean_captions_and_tags,
    merge_all_to_metadata,
    merge_captions_to_metadata,
    merge_dd_tags_to_metadata,
)
from library.problems import UserError
from tools import restore_texts

COMMANDS = {
    "M": merge_captions_to_metadata,
    "T": merge_dd_tags_to_metadata,
    "A": merge_all_to_metadata,
    "C": clean_captions_and_tags,
    "restore": restore_texts,
}


def run(command: str, *words: object) -> None:
    module = COMMANDS[command]
    call(module.main, f"{module.__name__.rpartition('.')[2]}.py", *words)


def write(folder: Path, texts: dict[str, str]) -> Path:
    """Files with these texts; pictures of one pixel where a name ends like one."""
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.new("RGB", (1, 1)).save(path)
        else:
            path.write_bytes(text.encode())
    return folder


@pytest.fixture
def train(tmp_path: Path) -> Path:
    texts = {
        "a.caption": "a cat\n",
        "a.txt": " 1girl, long_hair, rating:safe",
        "b.caption": "line one\r\nline two\n",
        "b.txt": "",
        "sub/c.caption": "sub",
        "sub/c.txt": "x",
    }
    pictures = dict.fromkeys(("a.png", "b.jpg", "sub/c.png", "._a.png", "__MACOSX/a.png"), "")
    return write(tmp_path / "train", texts | pictures)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_row_of_commands_gives_what_sd_scripts_does(train: Path, tmp_path: Path) -> None:
    m, m2, m3 = (tmp_path / f"{name}.json" for name in ("m", "m2", "m3"))
    run("M", train, m)
    lines = "line one\nline two"
    assert read(m) == {"a": {"caption": "a cat"}, "b": {"caption": lines}}
    assert m.read_text() == json.dumps(read(m), indent=2)
    run("T", train, m2, "--in_json", m)
    tags = "1girl, long_hair, rating:safe"
    assert read(m2) == {"a": {"caption": "a cat", "tags": tags}, "b": {"caption": lines, "tags": ""}}
    run("C", m2, m3)
    cleaned = {"caption": "a cat", "tags": "1girl, long hair"}
    assert read(m3) == {"a": cleaned, "b": {"caption": lines, "tags": ""}}
    run("A", train, tmp_path / "all.json")
    assert read(tmp_path / "all.json") == read(m2)
    assert list(read(tmp_path / "all.json")["a"]) == ["tags", "caption"]
    run("A", train, tmp_path / "all.json", "--clean_caption")
    assert read(tmp_path / "all.json") == read(m3)


def test_whole_paths_name_pictures_in_all_folders(train: Path, tmp_path: Path) -> None:
    m = tmp_path / "m.json"
    run("M", train, m, "--full_path")
    assert list(read(m)) == [str(train / "a.png"), str(train / "b.jpg")]
    run("M", train, m, "--full_path", "--recursive")
    assert read(m)[str(train / "sub" / "c.png")] == {"caption": "sub"} and len(read(m)) == 3
    with pytest.raises(UserError, match="--recursive: needs --full_path"):
        run("M", train, m, "--recursive")


def test_entries_stay_and_what_was_there_can_be_put_back(
    train: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    m = tmp_path / "m.json"
    before = json.dumps({"a": {"caption": "old", "tags": "keep", "x": 1}, "zz": {"tags": "t"}})
    m.write_text(before)
    run("M", train, m)
    assert list(read(m)) == ["a", "zz", "b"]
    assert read(m)["a"] == {"caption": "a cat", "tags": "keep", "x": 1}
    (undo,) = tmp_path.glob("undo-*.jsonl")
    said = capsys.readouterr()
    assert said.out == f"2 captions put into {m}; what it held before is in {undo}\n" and not said.err
    run("M", train, m)  # nothing changes, so nothing is kept
    assert list(tmp_path.glob("undo-*.jsonl")) == [undo]
    run("restore", undo)
    assert m.read_text() == before
    assert len(list(tmp_path.glob("undo-*.jsonl"))) == 2


def test_missing_texts_are_counted_and_the_others_are_there(
    train: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """sd-scripts ends with an exception at the first, and writes nothing."""
    (train / "b.caption").unlink()
    run("M", train, tmp_path / "m.json")
    assert read(tmp_path / "m.json") == {"a": {"caption": "a cat"}}
    assert "1 picture has no .caption file: b.jpg" in capsys.readouterr().err
    (train / "a.txt").unlink()
    run("A", train, tmp_path / "all.json", "--clean_caption")
    assert read(tmp_path / "all.json") == {"a": {"caption": "a cat"}, "b": {"tags": ""}}


def test_other_suffixes_and_texts_as_they_are_read(
    train: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(train, {"a.desc": "by desc"})
    run("M", train, tmp_path / "m.json", "--caption_extention", "desc", "--debug")
    assert read(tmp_path / "m.json") == {"a": {"caption": "by desc"}}
    assert f"{train / 'a.png'} {{'caption': 'by desc'}}" in capsys.readouterr().out


def test_text_that_is_no_utf8_is_named_and_the_rest_is_written(train: Path, tmp_path: Path) -> None:
    (train / "b.caption").write_bytes("少女".encode("cp932"))
    with pytest.raises(UserError, match=r"b.caption: is not UTF-8 text: byte 0x8f at offset 0; save it as"):
        run("M", train, tmp_path / "m.json")
    assert read(tmp_path / "m.json") == {"a": {"caption": "a cat"}}


def test_other_scripts_are_escaped_and_entries_without_texts_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {"日本": {"caption": "少女 a young lady"}, "q": {"tags": "2girls, red eyes, blue eyes"}, "e": {}}
    (tmp_path / "n.json").write_text(json.dumps(before, ensure_ascii=False), encoding="utf-8")
    run("C", tmp_path / "n.json", tmp_path / "n2.json")
    assert read(tmp_path / "n2.json") == {
        "日本": {"caption": "少女 a girl"},
        "q": {"tags": "2girls"},
        "e": {},
    }
    assert (tmp_path / "n2.json").read_text().startswith('{\n  "\\u65e5\\u672c": {\n    "caption": "\\u5c11')
    said = capsys.readouterr()
    assert said.out == f"2 of 3 entries changed in {tmp_path / 'n2.json'}\n"
    assert "2 entries have no tags: 日本, e" in said.err and "2 entries have no caption: q, e" in said.err
    run("C", tmp_path / "n.json", "tagged.json", tmp_path / "n3.json", "--whole_words", "--debug")
    assert read(tmp_path / "n3.json") == read(tmp_path / "n2.json")
    said = capsys.readouterr()
    assert "tagged.json is left out" in said.err
    assert "日本 caption: 少女 a young lady\n  -> 少女 a girl" in said.out


def test_pictures_of_one_name_and_metadata_of_another_folder_are_told(
    train: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(train, {"a.jpg": ""})
    (tmp_path / "m.json").write_text(json.dumps({"/else/x.png": {"tags": "t"}}))
    run("M", train, tmp_path / "m.json")
    said = capsys.readouterr().err
    assert "1 entry is of several pictures of one name: a" in said
    assert "m.json: holds 1 entry, which is not of a picture in" in said and "made with --full_path" in said


def test_lines_of_json_stay_lines(train: Path, tmp_path: Path) -> None:
    m = tmp_path / "m.jsonl"
    m.write_text(json.dumps({"image_path": "a", "tags": "keep"}) + "\n")
    run("M", train, m)
    assert [json.loads(line) for line in m.read_text().splitlines()] == [
        {"image_path": "a", "tags": "keep", "caption": "a cat"},
        {"image_path": "b", "caption": "line one\nline two"},
    ]


@pytest.mark.parametrize(
    ("command", "words", "cause"),
    [
        ("M", (), "<train_data_dir>: is needed"),
        ("M", ("no", "m.json"), "<train_data_dir> no: there is no such folder"),
        ("M", ("empty", "m.json"), "empty: holds no pictures; it is empty"),
        (
            "M",
            ("above", "m.json"),
            "above: holds no pictures; found 1 folder .*--recursive takes 1 picture in",
        ),
        ("M", ("above/in", "empty"), "empty: is a folder; give the metadata file"),
        ("M", ("above/in", "m.json", "--in_json", "no.json"), "no.json: there is no such file"),
        ("M", ("above/in", "m.json", "--in_json", "bad.json"), "bad.json: is not valid JSON"),
        ("M", ("above/in", "m.json", "--in_json", "list.json"), "list.json: must hold"),
        ("M", ("above/in", "m.json", "--in_json", "odd.json"), 'odd.json: 2 entries are not .*: "a", "b"'),
        ("M", ("above/in", "m.json", "--in_json", "twice.json"), 'twice.json: .*"a" is there twice'),
        ("M", ("above/in", "m.json", "--caption_extension", "../x"), "--caption_extension: expects a suffix"),
        ("C", ("no.json", "m.json"), "no.json: there is no such file"),
        ("C", ("odd.json",), "<out_json>: is needed"),
        ("restore", ("no.jsonl",), "no.jsonl: there is no such file"),
        ("restore", ("list.json",), "list.json: keeps no texts|must be"),
        ("restore", ("evil.jsonl",), "evil.jsonl:1: names a file outside"),
    ],
)
def test_what_is_wrong_is_one_line(
    command: str, words: tuple, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "above/in/a.png": "",
        "empty/x": "",
        "bad.json": "{",
        "list.json": "[1]",
        "odd.json": '{"a": 1, "b": {"tags": []}, "c": {}}',
        "twice.json": '{"a": {}, "a": {}}',
        "evil.jsonl": '{"file": "../m", "text": ""}\n',
    }
    write(tmp_path, files)
    (tmp_path / "empty" / "x").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=cause):
        run(command, *words)
    assert not (tmp_path / "m.json").exists()


def test_a_hundred_thousand_entries_would_take_less_than_ten_seconds(tmp_path: Path) -> None:
    tags = "1girl, solo, long_hair, blonde_hair, blue_eyes, shirt, white_shirt, smile, looking_at_viewer, bow"
    metadata = {f"p{i}": {"caption": f"a young woman {i}", "tags": f"{tags}, t{i}"} for i in range(20_000)}
    (tmp_path / "m.json").write_text(json.dumps(metadata))
    began = time.process_time()
    run("C", tmp_path / "m.json", tmp_path / "n.json")
    assert time.process_time() - began < 2
    tags = "1girl, solo, long hair, blonde hair, blue eyes, white shirt, smile, looking at viewer, bow, t7"
    assert read(tmp_path / "n.json")["p7"] == {"caption": "a girl 7", "tags": tags}
