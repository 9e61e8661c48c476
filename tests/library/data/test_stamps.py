"""Pictures that were edited between a state and its resume are noticed, at the least cost."""

import json
import os
from dataclasses import replace

import pytest

from library.data import stamps
from library.data.stamps import PictureStamps


@pytest.fixture
def records(save_image, scan):
    for name in ("a", "b"):
        save_image(f"train/1_x/{name}.png", caption="cat")
    return scan().records


def saved(records, seconds=9.0):
    """The stamps of records as a state has them."""
    return json.loads(json.dumps(PictureStamps(records).now(seconds)))


def same_size_other_content(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def with_old_time(path):
    times = path.stat()
    same_size_other_content(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def moved(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("edit", "is_edited"),
    [
        (same_size_other_content, True),
        (with_old_time, True),
        (lambda path: path.write_bytes(path.read_bytes() + b" "), True),
        (moved, False),
        (lambda path: path.touch(), False),
        (lambda path: path.unlink(), False),
    ],
    ids=["same size", "same size and time", "another size", "copied", "touched", "gone"],
)
def test_a_picture_with_another_content_is_named(records, edit, is_edited):
    before = saved(records)
    edit(records[0].image)
    assert PictureStamps(records).edited(before) == (["1_x/a.png"] if is_edited else [], [])


def test_a_conditioning_image_and_a_caption_are_named(records, save_image, tmp_path):
    hint = save_image("hints/a.png")
    records = [replace(records[0], hint=hint), records[1]]
    before = saved(records)
    same_size_other_content(hint)
    now = [records[0], replace(records[1], caption="dog")]
    assert PictureStamps(now).edited(before) == (["hints/a.png"], ["1_x/b.png"])


def test_nothing_is_read_where_size_and_times_are_the_same(records, monkeypatch):
    before = saved(records)
    monkeypatch.setattr(stamps, "_digest", lambda path: pytest.fail("was read"))
    assert PictureStamps(records).edited(before) == ([], [])


def test_digests_that_there_was_no_time_for_come_with_a_later_save(records):
    kept = PictureStamps(records)
    assert ["digest" in stamp for stamp in kept.now(0).values()] == [False, False]
    without = json.loads(json.dumps(kept.now(0)))
    assert all("digest" in stamp for stamp in kept.now(9).values())
    assert kept.now(0) == kept.now(9)  # nothing is lost
    moved(records[0].image)
    os.utime(records[0].image, ns=(1, 1))
    assert kept.edited(without).pictures == ["1_x/a.png"]  # by its time alone


def test_the_end_of_a_large_file_counts_too(records):
    large = records[0].image
    large.write_bytes(bytes(3_000_000))
    before = saved(records)
    same_size_other_content(large)
    assert PictureStamps(records).edited(before).pictures == ["1_x/a.png"]


def test_two_pictures_of_one_name_keep_their_own_stamps(records, save_image):
    other = save_image("other/1_x/a.png", (80, 80))
    both = [records[0], replace(records[0], image=other)]
    assert list(saved(both)) == ["1_x/a.png", "1_x/a.png (2)"]
    assert PictureStamps(both).edited(saved(both)) == ([], [])


@pytest.mark.parametrize("before", [{}, {"1_x/a.png": 3}, {"1_x/a.png": None}, {"x": {}}])
def test_a_state_without_stamps_or_with_odd_ones_names_nothing(records, before):
    assert PictureStamps(records).edited(before) == ([], [])
