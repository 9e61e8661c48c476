"""metadata_cache.json: used where it holds, never where it does not, and the same file as sd-scripts'."""

import json
import os
import time
from pathlib import Path

import pytest

import library.data.scan.records
from library.data.summary import warning_lines
from library.problems import UserError

NAME = "metadata_cache.json"


@pytest.fixture
def folder(save_image, tmp_path):
    """A folder of four images whose files are an hour old."""
    save_image("train/1_sks dog/a.png", caption="a cat")
    save_image("train/1_sks dog/b.png", (96, 64), caption=" one \n\ntwo")
    save_image("train/1_sks dog/c.png")
    save_image("train/1_sks dog/d.png", caption="")
    age(tmp_path / "train" / "1_sks dog")
    return tmp_path / "train" / "1_sks dog"


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that a scan opens: images, and captions."""
    names = []

    def note(name, module):
        original = getattr(module, name)

        def noting(path, *more):
            names.append(Path(path).name)
            return original(path, *more)

        monkeypatch.setattr(module, name, noting)

    for name in ("look_at", "inspect", "read_caption"):
        note(name, library.data.scan.records)
    return names


def age(folder):
    """Make every file an hour old."""
    for path in folder.iterdir():
        os.utime(path, ns=(0, time.time_ns() - 3600 * 10**9))


def touch(path):
    """Another time of change, also in the past."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def facts(data):
    return [(record.image, record.caption, record.size) for record in data.records]


def entries(folder):
    return json.loads((folder / NAME).read_text(encoding="utf-8"))


def test_the_file_holds_captions_and_sizes_by_path_as_other_programs_read_them(folder, scan):
    scan(cache_info=True)
    found = {key: (entry["caption"], entry["resolution"]) for key, entry in entries(folder).items()}
    assert found == {
        str(folder / "a.png"): ("a cat", [64, 64]),
        str(folder / "b.png"): ("one", [96, 64]),
        str(folder / "c.png"): ("sks dog", [64, 64]),
        str(folder / "d.png"): ("", [64, 64]),
    }


def test_a_second_scan_opens_nothing_finds_the_same_and_does_not_write(folder, scan, opened):
    plain, first = scan(), scan(cache_info=True)
    assert len(opened) == 14
    written = (folder / NAME).stat().st_mtime_ns, (folder / NAME).stat().st_ino
    again = scan(cache_info=True)
    assert len(opened) == 14
    assert facts(plain) == facts(first) == facts(again)
    assert (
        [line for line in warning_lines(first) if NAME not in line]
        == warning_lines(again)
        == warning_lines(plain)
    )
    assert ((folder / NAME).stat().st_mtime_ns, (folder / NAME).stat().st_ino) == written


def test_without_cache_info_the_file_is_neither_used_nor_written(folder, scan, opened):
    scan()
    assert not (folder / NAME).exists()
    scan(cache_info=True)
    opened.clear()
    scan()
    assert len(opened) == 7


def test_other_settings_use_the_same_entries(folder, scan, opened):
    scan(cache_info=True)
    opened.clear()
    data = scan(cache_info=True, enable_wildcard=True)
    assert opened == []
    assert [record.caption for record in data.records] == ["a cat", "one\ntwo", "sks dog", ""]
    assert entries(folder)[str(folder / "b.png")]["caption"] == "one\ntwo"
    assert [record.caption for record in scan(cache_info=True).records] == ["a cat", "one", "sks dog", ""]


def test_what_changed_is_read_again_and_nothing_else(folder, scan, opened, save_image):
    scan(cache_info=True)
    opened.clear()
    touch(folder / "a.png")  # the image's time
    (folder / "b.caption").write_text("three")  # the caption's length
    touch(folder / "b.caption")
    data = scan(cache_info=True)
    assert sorted(opened) == ["a.caption", "a.png", "b.caption", "b.png"]
    assert [record.caption for record in data.records] == ["a cat", "three", "sks dog", ""]


def test_an_image_of_another_size_is_noticed(folder, scan, save_image):
    scan(cache_info=True)
    save_image("train/1_sks dog/a.png", (32, 48))
    assert scan(cache_info=True).records[0].size == (32, 48)


def test_captions_that_come_and_go_are_noticed(folder, scan):
    scan(cache_info=True)
    (folder / "c.caption").write_text("new")
    (folder / "a.caption").unlink()
    age(folder)
    data = scan(cache_info=True)
    assert [record.caption for record in data.records] == ["sks dog", "one", "new", ""]
    (folder / "c.txt").write_text("txt")
    age(folder)
    data = scan(cache_info=True, caption_extension=".txt")
    assert [record.caption for record in data.records] == ["sks dog", "sks dog", "txt", "sks dog"]


def test_images_that_come_and_go_are_noticed(folder, scan, save_image, opened):
    scan(cache_info=True)
    opened.clear()
    (folder / "b.png").unlink()
    save_image("train/1_sks dog/e.png")
    names = [record.image.name for record in scan(cache_info=True).records]
    assert names == ["a.png", "c.png", "d.png", "e.png"]
    assert opened == ["e.png"]
    assert [Path(key).name for key in entries(folder)] == names


def test_files_that_changed_a_moment_ago_are_not_trusted(folder, scan, opened):
    os.utime(folder / "a.caption")  # now: it may change again within the clock's tick
    scan(cache_info=True)
    assert "made_from" not in entries(folder)[str(folder / "a.png")]
    opened.clear()
    scan(cache_info=True)
    assert opened == ["a.png", "a.caption"]


def test_entries_of_sd_scripts_are_read_again(folder, scan, opened):
    theirs = {str(folder / "a.png"): {"caption": "old", "resolution": [8, 8]}}
    (folder / NAME).write_text(json.dumps(theirs, indent=2))
    data = scan(cache_info=True)
    assert len(opened) == 7
    assert [record.caption for record in data.records] == ["a cat", "one", "sks dog", ""]
    assert "made_from" in entries(folder)[str(folder / "a.png")]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"", b"[" * 100_000])
def test_a_file_that_cannot_be_used_is_replaced_with_a_note(folder, scan, content):
    (folder / NAME).write_bytes(content)
    data = scan(cache_info=True)
    (note,) = (line for line in warning_lines(data) if NAME in line)
    assert note.startswith(f"{folder / NAME}: ")
    assert note.endswith(", so every file is read and it is written anew")
    assert len(entries(folder)) == 4


@pytest.mark.parametrize(
    "change",
    [{"resolution": "8x8"}, {"resolution": [8, "8"]}, {"resolution": [8]}, {"text": 5}, {"caption": None}],
)
def test_an_entry_that_somebody_spoilt_is_read_again(folder, scan, change):
    scan(cache_info=True)
    content = entries(folder)
    content[str(folder / "a.png")] |= change
    content["more"] = 5
    (folder / NAME).write_text(json.dumps(content))
    assert facts(scan(cache_info=True)) == facts(scan())


def test_a_folder_that_cannot_be_written_to_is_a_warning(folder, scan, monkeypatch):
    def refuse(path):
        raise UserError.of(path, "could not be written (Permission denied)")

    monkeypatch.setattr("library.data.scan.index.whole_file", refuse)
    data = scan(cache_info=True)
    assert (
        f"{folder / NAME}: could not be written (Permission denied), so the next start reads every file again"
    ) in warning_lines(data)


def test_bad_images_are_found_every_time_and_the_good_ones_kept(folder, scan, opened):
    (folder / "zero.png").touch()
    age(folder)
    for count in (8, 1):
        opened.clear()
        with pytest.raises(UserError, match=r"zero\.png: is empty"):
            scan(cache_info=True)
        assert len(opened) == count
    assert len(entries(folder)) == 4


def test_conditioning_images_are_part_of_what_an_entry_is_made_from(
    folder, scan, save_image, tmp_path, opened
):
    for name in "abcd":
        save_image(f"masks/{name}.png", (96, 64) if name == "b" else (64, 64))
    age(tmp_path / "masks")
    options = {"masked_loss": True, "conditioning_data_dir": tmp_path / "masks", "cache_info": True}
    first = scan(**options)
    opened.clear()
    assert scan(**options) == first
    assert opened == []
    save_image("masks/c.png", (64, 32))
    with pytest.raises(UserError, match=r"c\.png: is 64x32"):
        scan(**options)
    assert opened == ["c.png", "c.png"]


def test_held_out_images_are_in_the_file_too(folder, scan):
    first = scan(cache_info=True, validation_split=0.5)
    assert len(entries(folder)) == 4
    again = scan(cache_info=True, validation_split=0.5)
    assert facts(again) == facts(first)
    assert facts(again.validation) == facts(first.validation)
    assert len(facts(again)) == len(facts(again.validation)) == 2


def test_names_beyond_ascii_are_kept_as_they_are(folder, scan, opened, save_image):
    (folder / "a.png").rename(folder / "café 猫.png")
    scan(cache_info=True)
    opened.clear()
    scan(cache_info=True)
    assert opened == []


def test_a_metadata_file_has_no_use_for_it(scan, save_image, tmp_path):
    save_image("train/a.png")
    (tmp_path / "meta.json").write_text('{"a": {"caption": "x"}}')
    data = scan(in_json=tmp_path / "meta.json", cache_info=True)
    assert f"{tmp_path}/meta.json: cache_info has no effect on a metadata file" in warning_lines(data)
    assert not (tmp_path / "train" / NAME).exists()
