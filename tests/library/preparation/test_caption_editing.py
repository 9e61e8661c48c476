"""Editing captions and tags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import make_pictures, run_here

from library.options.editing import EditingOptions
from library.preparation.editing import make_editor
from library.problems import UserError


def edited(text: str, *, texts: tuple[str, ...] = (), **options: object) -> str:
    made = EditingOptions(source=Path("x"), dry_run=True, **options)  # type: ignore[arg-type]
    return make_editor(made, texts).edited(text)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a, smilling, b", {"replace": ("smilling=smiling",)}, "a, smiling, b"),
        ("a, Smilling", {"replace": ("smilling=b, c", "a=")}, "b, c"),
        ("smilling cat", {"replace": ("smilling=smiling",)}, "smilling cat"),  # another tag
        ("a smilling cat", {"replace_text": ("smilling =smiling ",)}, "a smiling cat"),
        ("x, watermark, web watermark", {"remove": ("*watermark",)}, "x"),
        ("a, [b], b", {"remove": ("[b]",)}, "a, b"),
        ("b", {"add": ("c", "B"), "add_first": ("a",)}, "a, b, c"),
        ("a, b, A, b", {"dedupe": True}, "a, b"),
        ("b, C, a", {"sort": "name"}, "a, b, C"),
        ("rare, often", {"sort": "frequency", "texts": ("often, x", "often", "rare")}, "often, rare"),
        ("a, shs, b", {"trigger_word": "shs"}, "shs, a, b"),
        ("a", {"trigger_word": "shs"}, "shs, a"),
        ("a,b , c", {"remove": ("x",)}, "a,b , c"),  # nothing changes: it stays as it was written
        ("a, {b, c|d}, e", {"sort": "name", "remove": ("e",)}, "a, {b, c|d}"),
        ("a, b\n\nb, c\n", {"remove": ("b",)}, "a\n\nc\n"),
        ("a; b", {"separator": ";", "remove": ("a",)}, "b"),
    ],
)
def test_edits(text: str, options: dict, expected: str) -> None:
    assert edited(text, **options) == expected


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "<source>: nothing is to be edited: see --help"),
        (("--replace", "a", "--dry_run"), "--replace: expects OLD=NEW, got 'a'"),
        (("--dedupe",), "--overwrite: is needed to replace texts; --dry_run shows what would change"),
        (("--add", "x", "--dry_run", "--separator", " "), "--separator: must have a sign"),
        (
            ("--add", "x", "--dry_run", "--caption_extension", ".tags"),
            "none of 2 pictures has a text file .tags",
        ),
    ],
)
def test_wrong_words_are_one_line(tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    with pytest.raises(UserError) as raised:
        run_here("tools.edit_captions", make_pictures(tmp_path, 2), *words)
    assert line in str(raised.value)
    assert len(raised.value.problems) == 1


def test_a_folder_is_edited_and_put_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_pictures(tmp_path / "pictures", 3)
    before = {path: path.read_bytes() for path in folder.glob("*.txt")}
    words = ("--replace", "number 1=first", "--trigger_word", "shs", "--recursive")
    run_here("tools.edit_captions", folder, *words, "--dry_run")
    shown = capsys.readouterr().out
    assert "- one, two, three, number 1\n+ shs, one, two, three, first" in shown
    assert "3 of 3 texts would change" in shown
    assert {path: path.read_bytes() for path in folder.glob("*.txt")} == before
    run_here("tools.edit_captions", folder, *words, "--overwrite")
    assert (folder / "0_01.txt").read_text() == "shs, one, two, three, first"
    (undo,) = folder.glob("undo-*.jsonl")
    assert f"the old ones are in {undo}" in capsys.readouterr().out
    run_here("tools.restore_texts", undo)
    assert {path: path.read_bytes() for path in folder.glob("*.txt")} == before


def test_a_metadata_file_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text(json.dumps({"a": {"tags": "b, a", "caption": "b, a"}, "b": {"caption": "c"}}))
    run_here("tools.edit_captions", path, "--sort", "name", "--overwrite")
    assert json.loads(path.read_text()) == {
        "a": {"tags": "a, b", "caption": "b, a"},
        "b": {"caption": "c"},
    }
    with pytest.raises(UserError, match="has no tags; choose --field tags or caption"):
        path.write_text(json.dumps({"b": {"caption": "c"}}))
        run_here("tools.edit_captions", path, "--sort", "name", "--overwrite")
