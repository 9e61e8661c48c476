"""Metadata files: JSON and JSONL, keys of all kinds, and what is wrong with them."""

import json
import os

import pytest

from library.data.summary import warning_lines
from library.problems import UserError


def complaints(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return [str(problem) for problem in caught.value.problems]


def captions(data):
    return {record.image.name: record.caption for record in data.records}


def notes(data, part):
    return [line for line in warning_lines(data) if part in line]


@pytest.fixture
def scan_metadata(tmp_path, scan):
    """scan_metadata({key: entry}, ...), or with the file's text, over the images in tmp_path/train."""

    def scan_with(content, suffix=".json", **options):
        path = tmp_path / f"meta{suffix}"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return scan(in_json=path, **options)

    return scan_with


@pytest.fixture
def scan_lines(scan_metadata):
    """scan_lines([entry, ...], ...): the same with JSONL; a text is a line as it is."""

    def scan_with(entries, **options):
        lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
        return scan_metadata("\n".join(lines) + "\n", ".jsonl", **options)

    return scan_with


def test_keys_may_be_absolute_relative_or_stems(save_image, scan_metadata):
    absolute = save_image("elsewhere/a.png")
    save_image("train/b.jpg")
    save_image("train/c.jpg")
    save_image("train/sub/d.webp")
    save_image("train/v1.5.png")
    keys = [str(absolute), "b.jpg", "c", "sub/d", "v1.5"]
    data = scan_metadata({key: {"caption": f"is {key}"} for key in keys})
    names = ["a.png", "b.jpg", "c.jpg", "d.webp", "v1.5.png"]
    assert captions(data) == {name: f"is {key}" for name, key in zip(names, keys, strict=True)}


def test_keys_may_be_relative_to_the_working_folder(save_image, scan_metadata, tmp_path, monkeypatch):
    save_image("train/a.png")
    monkeypatch.chdir(tmp_path)
    assert captions(scan_metadata({"train/a.png": {"tags": "red"}})) == {"a.png": "red"}


def test_keys_may_have_been_made_on_windows(save_image, scan_metadata):
    save_image("train/sub/a.png")
    save_image("train/sub/b.png")
    data = scan_metadata({"sub\\a.png": {"caption": "x"}, "sub\\b": {"caption": "y"}})
    assert captions(data) == {"a.png": "x", "b.png": "y"}


def test_a_name_spelt_otherwise_is_found_when_nothing_fits_better(save_image, scan_metadata):
    save_image("train/Photo.JPG")
    save_image("train/cafe\u0301.png")  # as macOS writes it: e, then an accent
    save_image("train/b.png")
    if os.name == "posix":
        save_image("train/B.png")
    data = scan_metadata({"photo.jpg": {"caption": "x"}, "café": {"caption": "y"}, "b": {"caption": "z"}})
    assert captions(data) == {"Photo.JPG": "x", "cafe\u0301.png": "y", "b.png": "z"}


@pytest.mark.parametrize("old", ["/old/place/train/", "C:\\old\\train\\", "D:/", "\\\\server\\share\\x\\"])
def test_images_of_a_moved_dataset_are_found_by_the_end_of_their_path_with_a_note(
    save_image, scan_metadata, tmp_path, old
):
    save_image("train/a.png")
    save_image("train/sub/a.png")
    separator = "\\" if "\\" in old else "/"
    keys = [f"{old}a.png", f"{old}sub{separator}a.png"]
    data = scan_metadata({key: {"caption": key} for key in keys})
    assert {record.caption: record.image for record in data.records} == {
        keys[0]: tmp_path / "train" / "a.png",
        keys[1]: tmp_path / "train" / "sub" / "a.png",
    }
    (note,) = notes(data, "are gone")
    assert note == (
        f"{tmp_path}/meta.json: 2 entries name images that are gone; those of the same names in"
        f' {tmp_path}/train are used: "{keys[0]}", "{keys[1]}"'
    )


def test_two_images_of_one_name_are_not_mixed_up_when_a_dataset_was_moved(
    save_image, scan_metadata, tmp_path
):
    save_image("train/1.png")
    (message,) = complaints(
        scan_metadata, {"/old/cats/1.png": {"caption": "cat"}, "/old/dogs/1.png": {"caption": "dog"}}
    )
    assert "contradict earlier ones of the same image" in message


def test_caption_and_tags_are_joined(save_image, scan_metadata):
    for name in "abc":
        save_image(f"train/{name}.png")
    content = {"a": {"caption": "a cat", "tags": "red, big"}, "b": {"tags": "blue"}, "c": {}}
    data = scan_metadata(content)
    assert captions(data) == {"a.png": "a cat, red, big", "b.png": "blue", "c.png": ""}
    assert notes(data, "1 image without a caption trains with an empty caption")


def test_with_wildcards_every_line_has_the_tags(save_image, scan_metadata):
    save_image("train/a.png")
    save_image("train/b.png")
    content = {"a": {"caption": "one\n\ntwo ", "tags": "red"}, "b": {"caption": "", "tags": "blue"}}
    assert captions(scan_metadata(content)) == {"a.png": "one, red", "b.png": "blue"}
    assert captions(scan_metadata(content, enable_wildcard=True)) == {
        "a.png": "one, red\ntwo, red",
        "b.png": "blue",
    }


def test_the_size_is_the_images_own(save_image, scan_metadata):
    save_image("train/a.png", (96, 64))
    data = scan_metadata({"a": {"caption": "x", "image_size": [1, 2], "train_resolution": "?"}})
    assert [record.size for record in data.records] == [(96, 64)]


def test_jsonl_has_an_entry_in_every_line(save_image, scan_lines, tmp_path):
    for name in ("a", "b", "c"):
        save_image(f"train/{name}.png")
    entries = [
        {"image_path": str(tmp_path / "train" / "a.png"), "caption": "a\u2028cat", "image_size": [64, 64]},
        "   ",
        {"image_path": "b.png", "caption": "b", "tags": "red"},
        '{"image_path": "c", "tags": "mit \u2028 Zeichen"}\r',
    ]
    assert captions(scan_lines(entries)) == {"a.png": "a cat", "b.png": "b, red", "c.png": "mit   Zeichen"}


def test_bad_lines_of_jsonl_are_named_by_number(save_image, scan_lines, tmp_path):
    save_image("train/a.png")
    lines = [
        '{"image_path": "a.png", "caption": 5}',
        "{",
        '["a.png", "x"]',
        '{"caption": "x"}',
        '{"image_path": "gone.png", "caption": "x"}',
        '{"image_path": "a.png", "caption": "x", "caption": "y"}',
        "[" * 100_000,
    ]
    path = tmp_path / "meta.jsonl"
    broken, unclear, unsound, missing = complaints(scan_lines, lines)
    assert broken.startswith(f"{path}: 2 lines are not valid JSON: line 2 (")
    assert "line 7 (" in broken
    assert unclear == (
        f'{path}: 2 lines are not {{"image_path": text, "caption": text, "tags": text}}: line 3, line 4'
    )
    assert unsound == (
        f'{path}: 2 of 3 entries must be {{"caption": text, "tags": text}}, each once: "a.png" (line 1),'
        ' "a.png" (line 6); mend or remove them'
    )
    assert missing == (
        f'{path}: no image was found for 1 of 3 entries: "gone.png" (line 5); they are looked up in'
        f" {tmp_path}/train"
    )


def test_everything_wrong_is_found_together_in_one_line_of_each_kind(save_image, scan_metadata, tmp_path):
    for name in ("two.png", "two.jpg", "one.png", "list.png", "half.png"):
        save_image(f"train/{name}")
    (tmp_path / "train" / "zero.png").touch()
    content = {"two": {}, "one": 5, "list": {"tags": ["red"]}, "half": {"tags": "\ud83d"}, "zero": {}}
    content |= {f"gone{number}": {} for number in range(7)}
    path = tmp_path / "meta.json"
    *found, zero = complaints(scan_metadata, content)
    assert found == [
        f'{path}: 3 of 12 entries must be {{"caption": text, "tags": text}}, each once: "one", "list",'
        ' "half"; mend or remove them',
        f'{path}: 1 of 12 entries may mean several images: "two" is two.jpg or two.png; write the keys with'
        " their suffixes",
        f'{path}: no image was found for 7 of 12 entries: "gone0", "gone1", "gone2", "gone3", "gone4" and 2'
        f" more; they are looked up in {tmp_path}/train",
    ]
    assert zero.startswith(f"{tmp_path}/train/zero.png: is empty (0 bytes)")


def test_an_image_with_two_equal_entries_is_used_once_with_a_note(save_image, scan_metadata, tmp_path):
    save_image("train/a.png")
    save_image("train/b.png")
    text = '{"a": {"caption": "x"}, "b": {"caption": "y"}, "a.png": {"caption": "x "}, "b": {"caption": "y"}}'
    data = scan_metadata(text)
    assert captions(data) == {"a.png": "x", "b.png": "y"}
    assert notes(data, "repeat") == [
        f'{tmp_path}/meta.json: 2 entries repeat earlier ones; their images are used once: "a.png", "b"'
    ]


def test_an_image_with_two_entries_that_differ_is_a_problem(save_image, scan_metadata, scan_lines, tmp_path):
    save_image("train/a.png")
    save_image("train/b.png")
    text = '{"a": {"caption": "x"}, "b": {"caption": "y"}, "a.png": {"caption": "z"}, "b": {"caption": ""}}'
    assert complaints(scan_metadata, text) == [
        f"{tmp_path}/meta.json: 2 of 4 entries contradict earlier ones of the same image:"
        ' "a" and "a.png", "b" and "b"; remove one of each'
    ]
    lines = [{"image_path": "a", "caption": "x"}, {"image_path": "a", "caption": "y"}]
    (message,) = complaints(scan_lines, lines)
    assert '"a" (line 1) and "a" (line 2)' in message


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "\n \n", 'must hold {"image_path": text, "caption": text, "tags": text}'),
        ("a.json", "{", "is not valid JSON: "),
        ("b.json", "{}", 'must hold {"image": {"caption": text, "tags": text}, ...}'),
        ("c.json", "[]", 'must hold {"image": {"caption": text, "tags": text}, ...}'),
        ("d.json", "[" * 100_000, "is not valid JSON: "),
        ("e.json", '{"image_path": "a"}\n{"image_path": "b"}', "is not valid JSON: Extra data"),
    ],
)
def test_metadata_that_cannot_be_used_is_one_line(scan, tmp_path, name, text, message):
    (tmp_path / "train").mkdir()
    (tmp_path / name).write_text(text)
    (found,) = complaints(scan, in_json=tmp_path / name)
    assert found.startswith(f"{tmp_path / name}: {message}")
    assert ("name it .jsonl" in found) == (name == "e.json")


def test_images_without_an_entry_are_pointed_out(save_image, scan_metadata, tmp_path):
    for name in ("a.png", "b.png", "sub/c.png", "sub/d.png"):
        save_image(f"train/{name}")
    data = scan_metadata({"a": {"caption": "x"}, "sub/c": {"caption": "y"}})
    assert notes(data, "no entry") == [
        f"{tmp_path}/meta.json: 2 images in {tmp_path}/train have no entry and are not used"
    ]


def test_bad_images_of_metadata_can_be_skipped(save_image, scan_metadata, tmp_path):
    save_image("train/a.png")
    (tmp_path / "train" / "zero.png").touch()
    data = scan_metadata({"a": {"caption": "x"}, "zero": {"caption": "y"}}, on_bad_image="skip")
    assert captions(data) == {"a.png": "x"}
    assert [bad.cause for bad in data.bad_images] == ["is empty (0 bytes)"]
