"""Cache files beside the images: what an entry was made from, whether it is still good, how it is written.

An entry is an uncompressed .npz file in sd-scripts' layout with one more array, `atelier`: its *recipe*, JSON
text that says what it was made from.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from library.data.caches.npz import BrokenArrays, MissingArray, npy_bytes, npz_bytes, read_npz
from library.data.caches.sharing import Sharing
from library.files import check_writable, is_name_too_long, remove_leftovers, whole_file
from library.problems import Problems, UserError, warn

Recipe = Mapping[str, Any]
# The CRC-32 of an entry's arrays by name: whether they are still the ones that a run found or wrote.
Sums = Mapping[str, int]

READERS = 4
FILES_PER_JOB = 64
WRITERS = 2
JOBS_AHEAD = 8
BYTES_PER_JOB = 2**15
RECIPE = "atelier"
CHECKSUMS = "checksums"

IN_MEMORY = "cache in memory: without _to_disk"
MADE_AGAIN = "was made again by another run"
ABSENT = "not there"
UNREADABLE = "unreadable"
# What a recipe holds -> what it means when that differs, in the order in which it is looked at.
REASONS = {
    "version": "made by an older version",
    "image": "image edited",
    "caption": "caption changed",
    "vae": "another VAE",
    "encoder": "another text encoder",
    "tokenizer": "another tokenizer",
    "bucket": "other resolution",
    "resized": "other resolution",
    "crop": "other crop",
    "interpolation": "other interpolation",
    "max_token_length": "other token length",
    "clip_skip": "other clip skip",
    "precision": "other precision",
}
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
    from tqdm import tqdm

    is_hidden = not progress or not sharing.is_first
    look = _look_whether_there if skip_check else look_at
    mine = sharing.share(wanted)
    jobs = [mine[start : start + FILES_PER_JOB] for start in range(0, len(mine), FILES_PER_JOB)]
    found: list[Finding] = []
    with (
        ThreadPoolExecutor(READERS) as pool,
        tqdm(total=len(mine), desc="checking cache files", delay=1, disable=is_hidden) as bar,
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


def why_stale(entry: Recipe, recipe: Recipe) -> str | None:
    """The first difference between what an entry was made from and what it should be made from, in the words
    of REASONS; None when there is none.
    """
    return next((reason for key, reason in REASONS.items() if entry.get(key) != recipe.get(key)), None)


def image_content(path: Path, known: Recipe | None = None) -> dict[str, Any]:
    """The part of a recipe that says which content an image file has: a hash, and the file's size in bytes
    and times, as its stamp. known: a recipe whose hash is taken when the stamp agrees; then nothing is read.
    """
    stamp = _stamp(path)
    if known is not None and all(known.get(key) == value for key, value in stamp.items()):
        return {**stamp, "image": known.get("image")}
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return {**stamp, "image": digest}


class Entry(NamedTuple):
    """What is to be written. keep: arrays that are in the file already and not made anew stay."""

    path: Path
    arrays: Mapping[str, np.ndarray]
    recipe: Recipe
    keep: bool = False


def write_entries(entries: Iterable[Entry]) -> dict[Path, Sums]:
    """Write entries in threads while the next ones are made; gives the checksums of each one's arrays.
    Raises UserError at the first that cannot be written.
    """

    def write(job: list[Entry]) -> dict[Path, Sums]:
        return {entry.path: write_entry(entry) for entry in job}

    written: dict[Path, Sums] = {}
    with ThreadPoolExecutor(WRITERS) as pool:
        writing: deque[Future[dict[Path, Sums]]] = deque()
        for job in _write_jobs(entries):
            writing.append(pool.submit(write, job))
            if len(writing) > JOBS_AHEAD:
                written.update(writing.popleft().result())
        for future in writing:
            written.update(future.result())
    return written


def write_entry(entry: Entry) -> Sums:
    """Write an entry whole; gives the checksums of its arrays. It is not flushed to the disk, which would
    take longer than making it: what a power cut tears is found by its checksums. Raises UserError when it
    cannot be written.
    """
    arrays = {**(_kept_arrays(entry) if entry.keep else {}), **entry.arrays}
    members = {name: npy_bytes(array) for name, array in arrays.items() if name != RECIPE}
    sums = {name: zlib.crc32(member) for name, member in members.items()}
    members[RECIPE] = npy_bytes(np.array(json.dumps({**entry.recipe, CHECKSUMS: sums})))
    with whole_file(entry.path, flush=False, otherwise=IN_MEMORY) as temporary:
        temporary.write_bytes(npz_bytes(members))
    return sums


def known_sums(
    findings: Iterable[Finding], written: Mapping[Path, Sums], sharing: Sharing
) -> dict[Path, Sums]:
    """For `read_entry`: the checksums of every entry that was found good or that a process has written, the
    same in all processes. written: by this one.
    """
    known = {finding.path: finding.sums for finding in findings if finding.sums}
    for share in sharing.gather(written):
        known.update(share)
    return known


def read_entry(
    path: Path, shapes: Mapping[str, tuple[int, ...] | None], *, sums: Sums | None = None
) -> list[np.ndarray]:
    """The named arrays of an entry that was found good or is used unchecked. shapes: what they have to have;
    None: any. sums: the checksums that they had. Raises UserError when they cannot be read, have another
    shape, or are not the same any more: another run with other settings writes to the same places.
    """
    fix = "start again" if sums else "run again without --skip_cache_check, and it is made again"
    try:
        arrays, found = read_npz(path, shapes)
    except (OSError, BrokenArrays) as error:
        is_other = sums and isinstance(error, MissingArray)
        cause = MADE_AGAIN if is_other else f"cannot be read ({error})"
        raise UserError.of(path, cause, fix) from error
    if sums and any(sums.get(name, crc) != crc for name, crc in found.items()):
        raise UserError.of(path, MADE_AGAIN, fix)
    for name, array in arrays.items():
        if array.shape != (shapes[name] or array.shape):
            raise UserError.of(path, f"{name} has the shape {array.shape} instead of {shapes[name]}", fix)
    return list(arrays.values())


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


def tell(what: str, findings: Sequence[Finding]) -> None:
    """Say what was there, as `findings` of before have it, and what was made because of them."""
    print(summary(what, findings), flush=True)
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


def _write_jobs(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries for one thread at a time: handing them over singly costs as much as making a small one."""
    job: list[Entry] = []
    for entry in entries:
        job.append(entry)
        if sum(array.nbytes for one in job for array in one.arrays.values()) >= BYTES_PER_JOB:
            yield job
            job = []
    if job:
        yield job


def _kept_arrays(entry: Entry) -> dict[str, np.ndarray]:
    """What is in its file, unless another run has written there since it was found."""
    with suppress(OSError, BrokenArrays):
        arrays, sums = read_npz(entry.path)
        recipe = _recipe_of(arrays, sums)
        return arrays if recipe is not None and why_stale(recipe, entry.recipe) is None else {}
    return {}


def _look_whether_there(wanted: Wanted) -> Finding:
    for path in filter(None, (wanted.path, wanted.old_path)):
        with suppress(OSError):  # a name that is too long
            if path.is_file():
                return Finding(path)
    return Finding(wanted.path, wanted.absent)


def _look_at_file(path: Path, wanted: Wanted) -> Finding:
    try:
        arrays, sums = read_npz(path)
        entry = _recipe_of(arrays, sums)
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


def _stamp(image: Path) -> dict[str, int]:
    """What differs when a file has another content. A file that takes another's place may have its size and
    its time of change (`cp -p`, an unpacked archive, names exchanged), but the status of one changed later.
    """
    status = image.stat()
    stamp = {"image_bytes": status.st_size, "image_mtime_ns": status.st_mtime_ns}
    stamp["image_ctime_ns"] = status.st_ctime_ns
    if os.name == "nt":  # there, that is when a file of this name was made first
        stamp["image_inode"] = status.st_ino
    return stamp


def _recipe_of(arrays: Mapping[str, np.ndarray], sums: Mapping[str, int]) -> Recipe | None:
    """An entry's recipe; None when it has none or another program wrote over what it is about. sd-scripts
    keeps arrays that it does not know.
    """
    if RECIPE not in arrays:
        return None
    try:
        recipe = json.loads(str(arrays[RECIPE][()]))
        is_own = all(sums.get(name) == crc for name, crc in recipe[CHECKSUMS].items())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BrokenArrays("the recipe cannot be read") from error
    return recipe if is_own else None


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
