"""Entries of image folders that are no plain files, and captions of several lines."""

from __future__ import annotations

import json
import os
import sys

import pytest

from library.data.summary import warning_lines
from library.problems import UserError
from library.text_files import read_text

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


@posix
def test_a_link_to_itself_and_a_name_that_is_not_text_are_a_line_each(save_image, scan, tmp_path):
    folder = save_image("train/1_x/a.png").parent
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "loop.txt").symlink_to("loop.txt")
    try:
        (folder / os.fsdecode(b"b\xff.png")).write_bytes((folder / "a.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(UserError) as error:
        scan()
    lines = [str(problem).removeprefix(f"{folder}/") for problem in error.value.problems]
    assert lines[0] == "b\udcff.png: has a name that is not UTF-8 text; rename it"
    assert any(line.startswith("loop.png: cannot be read (Too many levels") for line in lines)
    assert len(lines) <= 3


@posix
def test_pipes_are_passed_over_with_a_line_and_never_waited_for(save_image, scan, tmp_path):
    folder = save_image("train/1_x/a.png").parent
    for name in ("a.caption", "p.png"):
        os.mkfifo(folder / name)
    data = scan()
    assert data.image_count == 1
    assert f"{folder}: 2 entries are no files and are left out: a.caption, p.png" in warning_lines(data)


@posix
def test_a_pipe_in_the_place_of_a_text_or_an_image_is_refused(save_image, scan, tmp_path):
    os.mkfifo(tmp_path / "p.txt")
    with pytest.raises(UserError, match="p.txt: is a pipe or device, not a file"):
        read_text(tmp_path / "p.txt")
    save_image("images/a.png")
    os.mkfifo(tmp_path / "images" / "b.png")
    (tmp_path / "m.json").write_text(json.dumps({"a.png": {"caption": "x"}, "b.png": {"caption": "y"}}))
    with pytest.raises(UserError, match="b.png"):
        scan(train_data_dir=tmp_path / "images", in_json=tmp_path / "m.json")


@pytest.mark.parametrize("is_wildcard", [False, True])
def test_captions_that_lose_lines_are_counted(save_image, scan, tmp_path, is_wildcard):
    save_image("train/1_x/a.png", caption="one\n\ntwo\nthree\n")
    save_image("train/1_x/b.png", caption="\none\n\n")
    save_image("train/1_x/c.png", caption="one\ntwo")
    lines = [line for line in warning_lines(scan(enable_wildcard=is_wildcard)) if "lines" in line]
    expected = (
        f"{tmp_path}/train/1_x: 2 captions have several lines, of which the first is used; "
        "--enable_wildcard draws one of them"
    )
    assert lines == ([] if is_wildcard else [expected])


@pytest.mark.parametrize("tags", [None, "red, big"])
def test_so_are_those_of_metadata(save_image, scan, tmp_path, tags):
    save_image("images/a.png")
    entry = {"caption": "first\nsecond", **({"tags": tags} if tags else {})}
    (tmp_path / "m.json").write_text(json.dumps({"a.png": entry}))
    data = scan(train_data_dir=tmp_path / "images", in_json=tmp_path / "m.json")
    assert sum("1 caption has several lines" in line for line in warning_lines(data)) == 1
