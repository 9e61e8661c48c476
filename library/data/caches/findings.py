"""Which cache entries a run wants, whether they are there and still good, and why not."""

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
from library.data.caches.entries import IN_MEMORY, Entry, write_entry
from library.data.caches.npz import BrokenArrays, read_npz
from library.data.caches.recipes import REASONS, Recipe, Sums, image_content, recipe_of, why_stale
from library.files import check_writable, is_name_too_long, remove_leftovers
from library.problems import Problems, UserError, warn
from library.sharing import Sharing

READERS = 4
FILES_PER_JOB = 64

ABSENT = "not there"
UNREADABLE = "unreadable"
# Arrays that are there only if a run asked for them -> what it means when one is missing.
INCOMPLETE = {"latents_flipped": "no mirrored latents", "alpha_mask": "no alpha mask"}


@dataclass(frozen=True)
class Wanted:
    """What a run wants of a cache file.

    path: its place; old_path: another, whose entry is used when it is good. beside: the image that it lies
    beside. recipe: what the entry has to be made from. image: an image whose content it is made from, too.
    shapes: of the arrays it has to have; misshapen: what other shapes mean; absent: what it means that
    nothing is there.
    For entries without a recipe: numbers that some of their arrays have to hold, and whether they can be used
    at all.
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
class Finding:
    """Where a wanted entry is, or belongs.

    reason: why it has to be made; None: it is good. is_foreign: another program made it. sums: of the wanted
    arrays of a good one that was looked into.
    """

    path: Path
    reason: str | None = None
    is_foreign: bool = False
    sums: Sums = field(default_factory=dict, compare=False)

    @property
    def is_good(self) -> bool:
        return self.reason is None


def real_places(images: Iterable[Path]) -> list[Path]:
    """Where the images are, whichever ways datasets name their folders (through links or ".."). A link to an
    image counts as an image of its own.
    """
    resolve = functools.cache(Path.resolve)
    return [resolve(image.parent) / image.name for image in images]


def find_entries(
    wanted: Sequence[Wanted], sharing: Sharing, *, skip_check: bool, progress: bool
) -> list[Finding]:
    """Looks at every wanted entry, this process at its share; the same findings in all processes."""

    is_hidden = not progress or not sharing.is_first
    look = _look_whether_there if skip_check else look_at
    mine = sharing.share(wanted)
    jobs = [mine[start : start + FILES_PER_JOB] for start in range(0, len(mine), FILES_PER_JOB)]
    found: list[Finding] = []
    with (
        ThreadPoolExecutor(READERS) as pool,
        progress_bar(total=len(mine), desc="checking cache files", delay=1, disable=is_hidden) as bar,
    ):
        for findings in pool.map(lambda job: [look(entry) for entry in job], jobs):
            found.extend(findings)
            bar.update(len(findings))
    return sharing.joined(found)


def look_at(wanted: Wanted) -> Finding:
    """Whether there is an entry that is whole and made from the right things; else why not."""
    finding = _look_at_file(wanted.path, wanted)
    if wanted.old_path is None or finding.is_good:
        return finding
    old = _look_at_file(wanted.old_path, wanted)
    return old if old.is_good else finding


def prepare_folders(wanted: Sequence[Wanted], findings: Sequence[Finding], problems: Problems) -> None:
    """Removes what killed runs left in the folders of the entries, and adds to `problems` folders where
    entries have to be made and cannot be, and images whose names are too long for them.
    """
    for folder in dict.fromkeys(entry.path.parent for entry in wanted):
        remove_leftovers(folder)
    to_make = [entry for entry, finding in zip(wanted, findings, strict=True) if not finding.is_good]
    for folder in dict.fromkeys(entry.path.parent for entry in to_make):
        problems.attempt(check_writable, folder, f"make it writable, or {IN_MEMORY}")
    for entry in to_make:
        if is_name_too_long(entry.path):
            cause = "its name is too long for a cache file beside it"
            problems.add(entry.beside or entry.path, cause, f"rename it, or {IN_MEMORY}")


def keeps_arrays(finding: Finding) -> bool:
    """Whether an entry is good as far as it goes, so that what it has can stay when the rest is made."""
    return not finding.is_foreign and finding.reason in INCOMPLETE.values()


def known_sums(
    findings: Iterable[Finding], written: Mapping[Path, Sums], sharing: Sharing
) -> dict[Path, Sums]:
    """The checksums of every entry that was found good or that a process has written, the
    same in all processes. written: by this one.
    """
    known = {finding.path: finding.sums for finding in findings if finding.sums}
    for share in sharing.gather(written):
        known.update(share)
    return known


def tell(what: str, findings: Sequence[Finding]) -> None:
    """Say what was there, as `findings` of before have it, and what was made because of them."""
    say(summary(what, findings))
    foreign = [finding.path for finding in findings if finding.is_good and finding.is_foreign]
    if foreign:
        warn(
            f"{len(foreign)} cache files do not say what they were made from, and are used because they fit,"
            f" e.g. {foreign[0]}; if images, captions or models changed since, remove them"
        )


def summary(what: str, findings: Sequence[Finding]) -> str:
    """How many entries were there, made, and made again, with a count per reason."""
    foreign = sum(finding.is_good and finding.is_foreign for finding in findings)
    there = sum(finding.is_good for finding in findings) - foreign
    reasons = Counter(finding.reason for finding in findings if not finding.is_good)
    made = reasons.pop(ABSENT, 0)
    again = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    parts = [f"{there} were there already", f"{made} made"]
    if again:
        parts.append(f"{reasons.total()} made again ({again})")
    if foreign:
        parts.append(f"{foreign} taken over from another program")
    return f"{what} on disk: {', '.join(parts)}"


def _look_whether_there(wanted: Wanted) -> Finding:
    for path in filter(None, (wanted.path, wanted.old_path)):
        with suppress(OSError):  # a name that is too long
            if path.is_file():
                return Finding(path)
    return Finding(wanted.path, wanted.absent)


def _look_at_file(path: Path, wanted: Wanted) -> Finding:
    try:
        arrays, sums = read_npz(path)
        entry = recipe_of(arrays, sums)
    except FileNotFoundError:
        return Finding(path, wanted.absent)
    except (OSError, BrokenArrays):
        return Finding(path, UNREADABLE)
    if entry is None:
        return _finding(path, wanted, sums, _why_not_taken_over(arrays, wanted), is_foreign=True)
    try:
        content = image_content(wanted.image, entry) if wanted.image else {}
    except OSError:  # said when the image is read
        return Finding(path, REASONS["image"])
    recipe = {**wanted.recipe, **content}
    reason = why_stale(entry, recipe) or _why_misshapen(arrays, wanted)
    if reason is None and any(entry.get(key) != value for key, value in content.items()):
        with suppress(UserError):  # only so that the image need not be read again
            write_entry(Entry(path, arrays, recipe))
    return _finding(path, wanted, sums, reason)


def _finding(
    path: Path, wanted: Wanted, sums: Sums, reason: str | None, *, is_foreign: bool = False
) -> Finding:
    kept = {} if reason else {name: sums[name] for name in wanted.shapes}
    return Finding(path, reason, is_foreign, kept)


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
