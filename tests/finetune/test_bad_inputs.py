"""What people's folders, files and disks bring to preparation: a line each, and what they have is untouched.

Bad options, and faults that one command alone can meet, are in the tests of the commands.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_disks import fill_disk, make_read_only
from commands import call
from PIL import Image
from small_taggers import write_csv, write_tagger

from library.problems import UserError

COMMANDS = {
    "aside": "tools.set_aside",
    "buckets": "finetune.prepare_buckets_latents",
    "clean": "finetune.clean_captions_and_tags",
    "edit": "tools.edit_captions",
    "hints": "tools.make_hints",
    "merge": "finetune.merge_captions_to_metadata",
    "merge_all": "finetune.merge_all_to_metadata",
    "names": "finetune.make_captions",
    "resize": "tools.resize_images_to_resolution",
    "restore": "tools.restore_texts",
    "row": "finetune.prepare",
    "tag": "finetune.tag_images_by_wd14_tagger",
}
NAMES = ("pictures", "--from_names")
TAG = ("pictures", "--repo_id", "wd14")
EDIT = ("pictures", "--add", "new", "--overwrite")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 456\n"


def put(name: str, content: bytes | str) -> Callable[[Path], None]:
    """A file with this content, or text in UTF-8."""

    def do(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return do


def folder(name: str) -> Callable[[Path], None]:
    """A folder, in the place of a file if one is there."""

    def do(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).mkdir(parents=True)

    return do


def nothing(_: Path) -> None:
    pass


def lost_link(name: str) -> Callable[[Path], None]:
    """A link to nothing, where the system lets one make it."""

    def do(root: Path) -> None:
        try:
            (root / name).symlink_to("moved.png")
        except OSError:
            pytest.skip("links cannot be made here")

    return do


def only_bad_pictures(root: Path) -> None:
    for path in (root / "pictures").iterdir():
        path.write_bytes(b"")


def pipe(name: str) -> Callable[[Path], None]:
    """A pipe in the place of a file, where the system knows such."""

    def do(root: Path) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes have names here")
        (root / name).unlink()
        os.mkfifo(root / name)

    return do


@dataclass(frozen=True)
class Case:
    """change: what is bad about the folder. words: of the command. cause: what is said of it."""

    command: str
    words: tuple[str, ...]
    cause: str
    change: Callable[[Path], None] = nothing


MERGE = ("pictures", "m.json")
BUCKETS = ("pictures", "good.json", "out.json", "model.safetensors")
CASES = {
    # folders
    "a file for a folder": Case("tag", ("good.json",), "<train_data_dir> good.json: is a file, not a folder"),
    "no folder": Case(
        "names", ("pictues", "--from_names"), "<train_data_dir> pictues: there is no such folder; "
    ),
    "an empty folder": Case(
        "resize", ("empty", "out"), "<src_img_folder> empty: holds no pictures; it is empty", folder("empty")
    ),
    "a folder of films": Case(
        "row",
        ("films", "--caption", "names"),
        "<train_data_dir> films: holds no pictures; found 1 .mp4 file",
        put("films/a.mp4", b""),
    ),
    "pictures one folder further": Case(
        "resize",
        ("above", "out"),
        "<src_img_folder> above: holds no pictures; found 1 folder ('1_cat'); give a folder inside:"
        " above/1_cat has 1 picture",
        put("above/1_cat/a.png", b""),
    ),
    "a pipe for a text": Case(
        "merge",
        MERGE,
        "pictures/a.caption: is a pipe or device, not a file; give a file",
        pipe("pictures/a.caption"),
    ),
    # pictures
    "no picture that can be read": Case(
        "buckets",
        BUCKETS,
        "pictures/a.png: is empty (0 bytes); copy or download it again, or remove it",
        only_bad_pictures,
    ),
    "a cut off picture": Case(
        "resize",
        ("pictures", "out"),
        "pictures/c.png: is a damaged or cut off PNG image; copy or download it again",
        put("pictures/c.png", b"\x89PNG\r\n"),
    ),
    "a link to a picture that was moved": Case(
        "tag",
        TAG,
        "pictures/c.png: is a link to a file that does not exist; mend or remove the link",
        lost_link("pictures/c.png"),
    ),
    "a link to nothing among hints": Case(
        "hints",
        ("pictures", "out"),
        "pictures/c.png: is a link to a file that does not exist; mend or remove the link",
        lost_link("pictures/c.png"),
    ),
    "a picture that git did not get": Case(
        "tag",
        TAG,
        "pictures/c.png: is a Git LFS pointer, not an image; run `git lfs pull`",
        put("pictures/c.png", POINTER),
    ),
    # texts
    "a caption in cp932": Case(
        "merge",
        MERGE,
        "pictures/a.caption: is not UTF-8 text: byte 0x8f at offset 0; save it as UTF-8",
        put("pictures/a.caption", "少女".encode("cp932")),
    ),
    "tags in Latin-1": Case(
        "edit",
        EDIT,
        "pictures/a.txt: is not UTF-8 text: byte 0xe9 at offset 3; save it as UTF-8",
        put("pictures/a.txt", "café".encode("latin-1")),
    ),
    "UTF-16 that is cut off": Case(
        "edit",
        EDIT,
        "pictures/a.txt: is not UTF-16 text: byte 0x61 at offset 2; save it as UTF-8",
        put("pictures/a.txt", b"\xff\xfea"),
    ),
    "zeros for a text": Case(
        "merge_all",
        MERGE,
        "pictures/a.txt: is not text: a zero byte at offset 0; save it as UTF-8",
        put("pictures/a.txt", bytes(64)),
    ),
    "a folder for a text": Case(
        "merge",
        MERGE,
        "pictures/a.caption: is a folder, not a file; make it a text file",
        folder("pictures/a.caption"),
    ),
    "a folder where tags go": Case(
        "tag",
        TAG,
        "pictures/a.txt: could not be written (Is a directory); move the folder of that name",
        folder("pictures/a.txt"),
    ),
    # metadata
    "metadata in cp932": Case(
        "clean",
        ("m.json", "n.json"),
        "m.json: is not UTF-8 text: byte 0x8f at offset 2; save it as UTF-8",
        put("m.json", '{"少女": {}}'.encode("cp932")),
    ),
    "metadata cut off": Case(
        "clean",
        ("m.json", "n.json"),
        "m.json: is not valid JSON: Unterminated string starting at: line 1 column 16",
        put("m.json", '{"a": {"tags": "1gi'),
    ),
    "lines called .json": Case(
        "clean",
        ("m.json", "n.json"),
        "m.json: is not valid JSON: Extra data: line 2 column 1 (char 10); name it .jsonl",
        put("m.json", '{"a": {}}\n{"b": {}}\n'),
    ),
    "nested metadata": Case(
        "merge",
        MERGE,
        "m.json: is not valid JSON: maximum recursion depth exceeded",
        put("m.json", "[" * 100_000),
    ),
    "a picture for metadata": Case(
        "clean",
        ("pictures/a.png", "n.json"),
        "pictures/a.png: is not UTF-8 text: byte 0x89 at offset 0; save it as UTF-8",
    ),
    "no metadata": Case(
        "buckets",
        ("pictures", "no.json", "o.json", "m.safetensors"),
        "no.json: there is no such file; did you mean good.json?",
    ),
    "a folder for metadata": Case(
        "merge", ("pictures", "pictures"), "pictures: is a folder; give the metadata file to write"
    ),
    # taggers
    "a table with semicolons": Case(
        "tag",
        TAG,
        "wd14/selected_tags.csv: is no table of tags (its first line has no name and category: tag_id;name;",
        put("wd14/selected_tags.csv", "tag_id;name;category;count\n0;a;0;1\n"),
    ),
    "a table of another model": Case(
        "tag",
        TAG,
        "wd14/selected_tags.csv: has 2 tags, and model.onnx gives 6; get both files from one",
        put("wd14/selected_tags.csv", "tag_id,name,category\n0,a,0\n1,b,0\n"),
    ),
    "a table with half a line": Case(
        "tag",
        TAG,
        "wd14/selected_tags.csv: is no table of tags (line 7 has no name or category); it must hold",
        put("wd14/selected_tags.csv", "name,category\n" + "a,0\n" * 5 + "b"),
    ),
    "a table in Latin-1": Case(
        "tag",
        TAG,
        "wd14/selected_tags.csv: is not UTF-8 text: byte 0xe9 at offset 17; save it as UTF-8",
        put("wd14/selected_tags.csv", "name,category\ncafé,0\n".encode("latin-1")),
    ),
    "a table that git did not get": Case(
        "tag",
        TAG,
        "wd14/selected_tags.csv: is a Git LFS pointer, not the file itself; run git lfs pull",
        put("wd14/selected_tags.csv", POINTER),
    ),
    "a model that git did not get": Case(
        "tag",
        TAG,
        "wd14/model.onnx: is a Git LFS pointer, not the file itself; run git lfs pull",
        put("wd14/model.onnx", POINTER),
    ),
    "a web page for a model": Case(
        "tag",
        TAG,
        "wd14/model.onnx: is a web page, not the file itself; log in where it comes from",
        put("wd14/model.onnx", "<!DOCTYPE html><html>"),
    ),
    # captioners and models
    "a captioner's weights alone": Case(
        "names",
        ("pictures", "--model_id", "blip"),
        "blip: is no captioner that transformers opens (",
        put("blip/model.safetensors", b""),
    ),
    "settings that are no JSON": Case(
        "names",
        ("pictures", "--model_id", "blip"),
        "blip: cannot be opened (It looks like the config file",
        put("blip/config.json", "{"),
    ),
    "no model of latents": Case(
        "buckets",
        BUCKETS,
        "model.safetensors: is a Git LFS pointer, not the file itself; run git lfs pull",
        put("model.safetensors", POINTER),
    ),
    # what was kept
    "nothing kept": Case(
        "restore",
        ("undo.jsonl",),
        "undo.jsonl: keeps no texts; give a file that a command wrote to undo",
        put("undo.jsonl", ""),
    ),
    "a text outside": Case(
        "restore",
        ("undo.jsonl",),
        "undo.jsonl:1: names a file outside of this folder; remove the line",
        put("undo.jsonl", '{"file": "/etc/m", "text": ""}\n'),
    ),
}
ON_BAD_DISKS = {
    "names": NAMES,
    "tag": TAG,
    "edit": EDIT,
    "merge": ("pictures", "pictures/m.json"),
    "clean": ("good.json", "pictures/m.json"),
    "buckets": ("pictures", "good.json", "pictures/m.json", "model.safetensors"),
    "resize": ("pictures", "pictures/small"),
    "hints": ("pictures", "pictures/hints"),
    "restore": ("pictures/undo.jsonl",),
    "aside": ("pictures", "--min_side", "999"),
}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(write_tagger(tmp_path_factory.mktemp("wd14"), side=32))


@pytest.fixture
def root(tmp_path: Path, tagger: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures with texts, metadata, and a tagger."""
    for name in ("a", "b"):
        put(f"pictures/{name}.caption", f"caption {name}")(tmp_path)
        put(f"pictures/{name}.txt", f"tags {name}")(tmp_path)
        Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / f"{name}.png")
    put("pictures/undo.jsonl", '{"file": "a.txt", "text": "before"}\n')(tmp_path)
    put("good.json", json.dumps({"a": {"tags": "1girl, long_hair", "caption": "a"}}))(tmp_path)
    for path in tagger.iterdir():
        put(f"wd14/{path.name}", path.read_bytes())(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main_of(command: str) -> Callable[[], None]:
    return importlib.import_module(COMMANDS[command]).main


def is_kept(path: Path, content: bytes, root: Path) -> bool:
    """Whether a file that keeps replaced texts has this one."""
    kept = [json.loads(line) for file in root.rglob("undo-*.jsonl") for line in file.read_text().splitlines()]
    return {"file": path.name, "text": content.decode()} in kept


def contents(root: Path) -> dict[Path, bytes]:
    """All files but those that a thread is still removing."""
    files = [path for path in root.rglob("*") if path.suffix != ".part" and path.is_file()]
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_one_line(name: str, root: Path) -> None:
    case = CASES[name]
    case.change(root)
    before = contents(root)
    with pytest.raises(UserError) as error:
        call(main_of(case.command), f"{case.command}.py", *case.words)
    problems = [str(problem) for problem in error.value.problems]
    assert problems[0].startswith(case.cause) and not any("\n" in problem for problem in problems)
    after = contents(root)
    replaced = {path for path in before if after.get(path) != before[path]}
    assert all(is_kept(path, before[path], root) for path in replaced)


@pytest.mark.parametrize("command", ON_BAD_DISKS)
def test_nothing_is_lost_in_a_folder_that_is_read_only(command: str, root: Path) -> None:
    before = contents(root)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        make_read_only(root / "pictures", patch)
        call(main_of(command), f"{command}.py", *ON_BAD_DISKS[command])
    (line,) = str(error.value).split("\n")
    assert re.search(r"\(Permission denied\); (make it writable|choose another)", line)
    assert contents(root) == before


@pytest.mark.parametrize("command", [name for name in ON_BAD_DISKS if name not in ("aside", "buckets")])
def test_nothing_is_lost_when_the_disk_is_full(command: str, root: Path) -> None:
    before = contents(root)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        fill_disk(root / "pictures", patch)
        call(main_of(command), f"{command}.py", *ON_BAD_DISKS[command])
    for line in str(error.value).split("\n"):
        assert re.search(r"\(No space left on device\); (make room|choose another|make it)", line)
    assert contents(root) == before


def test_what_others_folders_hold_is_kept_and_told(root: Path, capsys: pytest.CaptureFixture) -> None:
    others = {"/else/x.png": {"tags": "t"}, "y": {"caption": "y"}}
    put("others.json", json.dumps(others))(root)
    call(main_of("merge"), "merge.py", "pictures", "m.json", "--in_json", "others.json")
    merged = json.loads((root / "m.json").read_text())
    assert merged == others | {name: {"caption": f"caption {name}"} for name in "ab"}
    assert "others.json: holds 2 entries, none of them of a picture in pictures" in capsys.readouterr().err
