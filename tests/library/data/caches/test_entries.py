import errno
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from library.data.caches.checks import ABSENT, EntryCheck, Wanted, check_entry, real_places, summary_line
from library.data.caches.entries import CacheEntry, read_entry, write_entries, write_entry
from library.data.caches.npz import npy_bytes, npz_bytes
from library.data.caches.recipes import REASONS, image_content, why_stale
from library.problems import UserError

LATENTS = np.arange(4 * 8 * 8, dtype=np.float32).reshape(4, 8, 8)
SHAPES = {"latents": (4, 8, 8)}
RECIPE = {"version": 1, "vae": "a", "bucket": [64, 64], "crop": [0, 0]}


@pytest.fixture
def entry(tmp_path: Path) -> Wanted:
    """A good entry in the file x.npz."""
    path = tmp_path / "x.npz"
    write_entry(CacheEntry(path, {"latents": LATENTS, "original_size": np.array([64, 64])}, RECIPE))
    return wanted(path)


def wanted(path: Path, **options) -> Wanted:
    return Wanted(path, RECIPE, SHAPES, "other resolution", **options)


def test_every_damage_is_noticed(entry):
    whole = entry.path.read_bytes()
    where = random.Random(0)
    for length in [0, 1, 21, 22, len(whole) // 2, len(whole) - 1]:
        entry.path.write_bytes(whole[:length])
        assert check_entry(entry) == EntryCheck(entry.path, "unreadable"), length
    start = whole.index(LATENTS.tobytes())
    for _ in range(50):  # in the latents and what comes before them; a power cut leaves zeros
        place = where.randrange(start + 4, start + LATENTS.nbytes)
        for damaged in (
            whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :],
            whole[:start] + bytes(len(whole[start:place])) + whole[place:],
        ):
            entry.path.write_bytes(damaged)
            assert check_entry(entry) == EntryCheck(entry.path, "unreadable")
    entry.path.write_bytes(bytes(len(whole)))
    assert check_entry(entry) == EntryCheck(entry.path, "unreadable")
    entry.path.write_bytes(whole)
    assert check_entry(entry) == EntryCheck(entry.path)


def test_random_changes_never_raise_anything_else(entry):
    whole = entry.path.read_bytes()
    where = random.Random(1)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(where.randrange(1, 6)):
            damaged[where.randrange(len(damaged))] = where.randrange(256)
        entry.path.write_bytes(damaged)
        check_entry(entry)


def test_a_recipe_that_is_not_one_is_unreadable(entry):
    for text in ("", "[]", "{}", '{"checksums": 3}', "{'a': 1}"):
        entry.path.write_bytes(
            npz_bytes({"latents": npy_bytes(LATENTS), "atelier": npy_bytes(np.array(text))})
        )
        assert check_entry(entry).reason == "unreadable", text


def test_a_folder_in_the_place_of_a_file_is_unreadable(tmp_path):
    (tmp_path / "x.npz").mkdir()
    assert check_entry(wanted(tmp_path / "x.npz")).reason == "unreadable"


@pytest.mark.parametrize("key", REASONS)
def test_every_difference_between_recipes_has_its_reason(key):
    recipe = dict.fromkeys(REASONS, "a")
    assert why_stale(recipe, recipe) is None
    assert why_stale(recipe, {**recipe, key: "b"}) == REASONS[key]
    without = {name: value for name, value in recipe.items() if name != key}
    # An entry from before `settings` were noted is no worse for that.
    assert why_stale(without, recipe) == (None if key == "settings" else REASONS[key])


def test_the_first_difference_is_told():
    assert why_stale({"version": 1, "vae": "a"}, {"version": 2, "vae": "b"}) == "made by an older version"


def test_an_entry_is_looked_for_at_its_old_place_too(entry, tmp_path):
    new = tmp_path / "new.npz"
    assert check_entry(wanted(new)) == EntryCheck(new, ABSENT)
    assert check_entry(wanted(new, old_path=entry.path)) == EntryCheck(entry.path)
    new.write_bytes(b"torn")
    assert check_entry(wanted(new, old_path=entry.path)) == EntryCheck(entry.path)
    entry.path.write_bytes(b"torn")
    assert check_entry(wanted(new, old_path=entry.path)) == EntryCheck(new, "unreadable")


def test_an_entry_that_another_program_wrote_over_is_taken_as_its_own(entry):
    """sd-scripts keeps arrays it does not know, so the recipe may be about older latents."""
    with np.load(entry.path) as file:
        kept = dict(file)
    np.savez(entry.path, **{**kept, "latents": LATENTS + 1})
    assert check_entry(entry) == EntryCheck(entry.path, is_foreign=True)
    np.savez(entry.path, **kept)
    assert check_entry(entry) == EntryCheck(entry.path)


def test_the_hash_of_an_image_is_made_anew_only_if_its_size_or_time_differ(tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"one")
    content = image_content(image)
    assert content["image_bytes"] == 3 and content["image_mtime_ns"] == image.stat().st_mtime_ns
    assert image_content(image, {**content, "image": "known"})["image"] == "known"
    image.write_bytes(b"two!")
    assert image_content(image, content)["image"] not in (None, content["image"])
    image.write_bytes(b"one")
    os.utime(image, ns=(0, content["image_mtime_ns"] + 10))
    assert image_content(image, content)["image"] == content["image"]


def test_another_file_of_the_same_size_and_time_is_another_content(tmp_path):
    images = tmp_path / "a.bmp", tmp_path / "b.bmp"
    for image, content in zip(images, (b"one", b"two"), strict=True):
        image.write_bytes(content)
        os.utime(image, ns=(0, 12345))
    contents = [image_content(image) for image in images]
    time.sleep(0.02)  # file systems tell times apart by a tick of the kernel
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (tmp_path / f"{old}.bmp").rename(tmp_path / f"{new}.bmp")
    for image, own, other in zip(images, contents, contents[::-1], strict=True):
        assert image.stat().st_mtime_ns == 12345
        assert image_content(image, own)["image"] == other["image"] != own["image"]


def test_an_image_whose_entry_does_not_know_its_change_of_status_is_read_once(tmp_path, monkeypatch):
    image, path = tmp_path / "a.png", tmp_path / "a.npz"
    image.write_bytes(b"pixels")
    content = image_content(image)
    older = {key: content[key] for key in ("image_bytes", "image_mtime_ns", "image")}
    write_entry(CacheEntry(path, {"latents": LATENTS}, {**RECIPE, **older}))
    assert check_entry(wanted(path, image=image)) == EntryCheck(path)
    monkeypatch.setattr(Path, "read_bytes", None)
    assert check_entry(wanted(path, image=image)) == EntryCheck(path)


def test_a_touched_image_is_read_once(tmp_path, monkeypatch):
    image, path = tmp_path / "a.png", tmp_path / "a.npz"
    image.write_bytes(b"pixels")
    write_entry(CacheEntry(path, {"latents": LATENTS}, {**RECIPE, **image_content(image)}))
    os.utime(image, ns=(0, 12345))
    assert check_entry(wanted(path, image=image)) == EntryCheck(path)
    monkeypatch.setattr(Path, "read_bytes", None)
    assert check_entry(wanted(path, image=image)) == EntryCheck(path)
    assert np.array_equal(read_entry(path, SHAPES)[0], LATENTS)


def test_arrays_that_are_kept_stay_beside_new_ones(entry):
    write_entry(CacheEntry(entry.path, {"latents_flipped": LATENTS * 2}, RECIPE, keep=True))
    assert np.array_equal(read_entry(entry.path, SHAPES)[0], LATENTS)
    write_entry(CacheEntry(entry.path, {"latents_flipped": LATENTS * 3}, {**RECIPE, "vae": "b"}, keep=True))
    with pytest.raises(UserError, match=r"x.npz: cannot be read .*; run again without --skip_cache_check, "):
        read_entry(entry.path, SHAPES)


def test_an_entry_that_is_not_the_one_found_is_a_problem_and_the_same_made_again_is_none(entry):
    sums = check_entry(entry).sums
    write_entry(
        CacheEntry(entry.path, {"latents": LATENTS, "alpha_mask": LATENTS[0]}, {**RECIPE, "other": 1})
    )
    assert np.array_equal(read_entry(entry.path, SHAPES, sums=sums)[0], LATENTS)
    for arrays in ({"latents": LATENTS + 1}, {"latents_flipped": LATENTS}):
        write_entry(CacheEntry(entry.path, arrays, RECIPE))
        with pytest.raises(UserError) as caught:
            read_entry(entry.path, SHAPES, sums=sums)
        assert str(caught.value) == f"{entry.path}: was made again by another run; start again"
    entry.path.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"x.npz: cannot be read \(.*\); start again$"):
        read_entry(entry.path, SHAPES, sums=sums)


def test_a_full_disk_is_said_with_what_to_do(entry, monkeypatch):
    def fill(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    said = "could not be written (No space left on device); make room, or cache in memory: without _to_disk"
    for name, kept in (("new.npz", ""), ("x.npz", "; what was there before is still there")):
        path = entry.path.with_name(name)
        with pytest.raises(UserError) as caught:
            write_entry(CacheEntry(path, {"latents": LATENTS}, RECIPE))
        assert str(caught.value) == f"{path}: {said}{kept}"


def test_an_array_of_another_shape_is_a_problem_that_names_the_file(entry):
    with pytest.raises(UserError) as caught:
        read_entry(entry.path, {"latents": (4, 8, 16)})
    assert str(caught.value) == (
        f"{entry.path}: latents has the shape (4, 8, 8) instead of (4, 8, 16);"
        " run again without --skip_cache_check, and it is made again"
    )


def test_an_image_has_one_place_whichever_way_its_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("im", "x"):
        Path(folder).mkdir()
    expected = tmp_path.resolve() / "im" / "a.png"
    named = [Path("im/a.png"), Path("x/../im/a.png"), tmp_path / "im" / "a.png"]
    assert real_places(named) == [expected] * 3


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege")
def test_a_link_to_a_folder_is_followed_and_a_link_to_an_image_is_an_image_of_its_own(tmp_path):
    (tmp_path / "im").mkdir()
    (tmp_path / "im" / "a.png").touch()
    (tmp_path / "link").symlink_to("im")
    (tmp_path / "b.png").symlink_to("im/a.png")
    real = tmp_path.resolve()
    assert real_places([tmp_path / "link" / "a.png", tmp_path / "b.png"]) == [
        real / "im" / "a.png",
        real / "b.png",
    ]


def test_many_entries_are_written_and_the_first_failure_is_raised(tmp_path):
    made = [
        CacheEntry(tmp_path / f"{number}.npz", {"latents": LATENTS + number}, RECIPE) for number in range(100)
    ]
    write_entries(iter(made))
    for number, one in enumerate(made):
        assert np.array_equal(read_entry(one.path, SHAPES)[0], LATENTS + number)
    (tmp_path / "full").write_bytes(b"")
    with pytest.raises(UserError, match="full"):
        write_entries([*made, made[0]._replace(path=tmp_path / "full" / "x.npz")])


def test_the_summary_counts_by_reason():
    path = Path("x.npz")
    checks = [
        *[EntryCheck(path)] * 5,
        *[EntryCheck(path, ABSENT)] * 2,
        EntryCheck(path, "other crop"),
        *[EntryCheck(path, "image edited")] * 2,
        EntryCheck(path, "other resolution", is_foreign=True),
        *[EntryCheck(path, is_foreign=True)] * 3,
    ]
    assert summary_line("latents", checks) == (
        "latents on disk: 5 were there already, 2 made,"
        " 4 made again (2 image edited, 1 other crop, 1 other resolution), 3 taken over from another program"
    )
