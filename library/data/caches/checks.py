"""Which cache entries a run wants, and for each whether it is a cache hit, or why it has to be made."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from library.console import progress_bar, say
from library.data.caches.entries import IN_MEMORY, CacheEntry, write_entry
from library.data.caches.npz import BrokenArrays, read_npz
from library.data.caches.recipes import REASONS, Recipe, Sums, image_content, recipe_of, why_stale
from library.files import check_writable, is_name_too_long, remove_leftovers
from library.problems import Problems, UserError, warn
from library.sharing import Sharing

READERS = 4
FILES_PER_JOB = 64

ABSENT = "not there"
UNREADABLE = "unreadable"
# Arrays that an entry has only if a run asked for them -> the reason to make it again when one is missing.
INCOMPLETE = {"latents_flipped": "no mirrored latents", "alpha_mask": "no alpha mask"}


@dataclass(frozen=True)
class Wanted:
    """A cache entry that a run wants.

    path: of its file.
    recipe: what it has to be made from.
    shapes: of the arrays it has to have.
    misshapen: the reason when they have other shapes.
    image: an image whose content is part of the recipe, or None.
    old_path: another file that is used when it holds a good entry.
    beside: the image that the entry lies beside.
    absent: the reason when there is no file.
    numbers: values that some arrays must have in an entry without a recipe, which another program wrote.
    takes_foreign: whether an entry without a recipe can be used at all.
    """

    path: Path
    recipe: Recipe
    shapes: Mapping[str, tuple[int, ...]]
    misshapen: str
    image: Path | None = None
    old_path: Path | None = None
    beside: Path | None = None
    absent: str = ABSENT
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    takes_foreign: bool = True


@dataclass(frozen=True)
class EntryCheck:
    """The result of checking a wanted entry.

    path: where it is, or where it has to be written.
    reason: why it has to be made; None: it is a cache hit.
    is_foreign: whether another program wrote it.
    sums: the checksums of the wanted arrays, of a hit that was verified.
    """

    path: Path
    reason: str | None = None
    is_foreign: bool = False
    sums: Sums = field(default_factory=dict, compare=False)

    @property
    def is_hit(self) -> bool:
        return self.reason is None


def real_places(images: Iterable[Path]) -> list[Path]:
    """Where the images are, however datasets name their folders (through links or ".."). A link to an image
    counts as an image of its own.
    """
    resolve = functools.cache(Path.resolve)
    return [resolve(image.parent) / image.name for image in images]


def check_entries(
    wanted: Sequence[Wanted], sharing: Sharing, *, skip_check: bool, progress: bool
) -> list[EntryCheck]:
    """Check every wanted entry; each process checks its share, and all get the same list.

    skip_check: take every file that is there as a hit, without reading it.
    """
    is_hidden = not progress or not sharing.is_first
    check = _check_presence if skip_check else check_entry
    mine = sharing.share(wanted)
    jobs = [mine[start : start + FILES_PER_JOB] for start in range(0, len(mine), FILES_PER_JOB)]
    checked: list[EntryCheck] = []
    with (
        ThreadPoolExecutor(READERS) as pool,
        progress_bar(total=len(mine), desc="checking cache files", delay=1, disable=is_hidden) as bar,
    ):
        for done in pool.map(lambda job: [check(entry) for entry in job], jobs):
            checked.extend(done)
            bar.update(len(done))
    return sharing.joined(checked)


def check_entry(wanted: Wanted) -> EntryCheck:
    """Whether there is an entry that is whole and made from the wanted recipe, else why not."""
    check = _check_file(wanted.path, wanted)
    if wanted.old_path is None or check.is_hit:
        return check
    old = _check_file(wanted.old_path, wanted)
    return old if old.is_hit else check


def prepare_folders(wanted: Sequence[Wanted], checks: Sequence[EntryCheck], problems: Problems) -> None:
    """Remove what killed runs left in the folders of the entries. Adds to `problems` the folders that entries
    cannot be written to, and images whose names are too long for entries beside them.
    """
    for folder in dict.fromkeys(entry.path.parent for entry in wanted):
        remove_leftovers(folder)
    to_make = [entry for entry, check in zip(wanted, checks, strict=True) if not check.is_hit]
    for folder in dict.fromkeys(entry.path.parent for entry in to_make):
        problems.attempt(check_writable, folder, f"make it writable, or {IN_MEMORY}")
    for entry in to_make:
        if is_name_too_long(entry.path):
            cause = "its name is too long for a cache file beside it"
            problems.add(entry.beside or entry.path, cause, f"rename it, or {IN_MEMORY}")


def keeps_arrays(check: EntryCheck) -> bool:
    """Whether an entry is only incomplete, so that the arrays it has can stay when the rest is made."""
    return not check.is_foreign and check.reason in INCOMPLETE.values()


def known_sums(
    checks: Iterable[EntryCheck], written: Mapping[Path, Sums], sharing: Sharing
) -> dict[Path, Sums]:
    """The checksums of every entry that was verified or that a process has written, the same in all
    processes. written: by this one.
    """
    known = {check.path: check.sums for check in checks if check.sums}
    for share in sharing.gather(written):
        known.update(share)
    return known


def tell(what: str, checks: Sequence[EntryCheck]) -> None:
    """Say how many entries were hits and how many were made because of `checks`."""
    say(summary_line(what, checks))
    foreign = [check.path for check in checks if check.is_hit and check.is_foreign]
    if foreign:
        warn(
            f"{len(foreign)} cache files do not say what they were made from, and are used because they fit,"
            f" e.g. {foreign[0]}; if images, captions or models changed since, remove them"
        )


def summary_line(what: str, checks: Sequence[EntryCheck]) -> str:
    """How many entries were hits, made, and made again, with a count per reason."""
    foreign = sum(check.is_hit and check.is_foreign for check in checks)
    there = sum(check.is_hit for check in checks) - foreign
    reasons = Counter(check.reason for check in checks if not check.is_hit)
    made = reasons.pop(ABSENT, 0)
    again = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    parts = [f"{there} were there already", f"{made} made"]
    if again:
        parts.append(f"{reasons.total()} made again ({again})")
    if foreign:
        parts.append(f"{foreign} taken over from another program")
    return f"{what} on disk: {', '.join(parts)}"


def _check_presence(wanted: Wanted) -> EntryCheck:
    for path in filter(None, (wanted.path, wanted.old_path)):
        with suppress(OSError):  # raised for a name that is too long
            if path.is_file():
                return EntryCheck(path)
    return EntryCheck(wanted.path, wanted.absent)


def _check_file(path: Path, wanted: Wanted) -> EntryCheck:
    try:
        arrays, sums = read_npz(path)
        found = recipe_of(arrays, sums)
    except FileNotFoundError:
        return EntryCheck(path, wanted.absent)
    except (OSError, BrokenArrays):
        return EntryCheck(path, UNREADABLE)
    if found is None:
        return _checked(path, wanted, sums, _why_not_taken_over(arrays, wanted), is_foreign=True)
    try:
        content = image_content(wanted.image, found) if wanted.image else {}
    except OSError:  # reading the image raises it again, with the file's name
        return EntryCheck(path, REASONS["image"])
    recipe = {**wanted.recipe, **content}
    reason = why_stale(found, recipe) or _why_misshapen(arrays, wanted)
    if reason is None and any(found.get(key) != value for key, value in content.items()):
        # The same content with another stamp: written anew, so that the image is not hashed next time.
        with suppress(UserError):
            write_entry(CacheEntry(path, arrays, recipe))
    return _checked(path, wanted, sums, reason)


def _checked(
    path: Path, wanted: Wanted, sums: Sums, reason: str | None, *, is_foreign: bool = False
) -> EntryCheck:
    kept = {} if reason else {name: sums[name] for name in wanted.shapes}
    return EntryCheck(path, reason, is_foreign, kept)


def _why_misshapen(arrays: Mapping[str, np.ndarray], wanted: Wanted) -> str | None:
    for name, shape in wanted.shapes.items():
        if name not in arrays:
            return INCOMPLETE.get(name, UNREADABLE)
        if arrays[name].shape != shape:
            return wanted.misshapen
    return None


def _why_not_taken_over(arrays: Mapping[str, np.ndarray], wanted: Wanted) -> str | None:
    """Why an entry without a recipe cannot be used."""
    if not wanted.takes_foreign:
        return REASONS["caption"]
    for name, numbers in wanted.numbers.items():
        if name in arrays and not np.array_equal(arrays[name], numbers):
            return REASONS["image"]
    reason = _why_misshapen(arrays, wanted)
    if reason is None and not all(_is_finite(arrays[name]) for name in wanted.shapes):
        return "not finite"
    return reason


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())
