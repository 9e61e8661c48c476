"""Cache entries, written and read: uncompressed .npz files in sd-scripts' layout, with a recipe inside."""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from library.data.caches.npz import BrokenArrays, MissingArray, npy_bytes, npz_bytes, read_npz
from library.data.caches.recipes import CHECKSUMS, RECIPE, Recipe, Sums, recipe_of, why_stale
from library.files import whole_file
from library.problems import UserError

WRITERS = 2
JOBS_AHEAD = 8
BYTES_PER_JOB = 2**15

IN_MEMORY = "cache in memory: without _to_disk"
MADE_AGAIN = "was made again by another run"


class CacheEntry(NamedTuple):
    """An entry to be written.

    keep: whether arrays that the file already has, and that `arrays` does not replace, stay in it.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    recipe: Recipe
    keep: bool = False


def write_entries(entries: Iterable[CacheEntry]) -> dict[Path, Sums]:
    """Write entries in threads while the next ones are made. Returns the checksums of each one's arrays.
    Raises UserError at the first that cannot be written.
    """

    def write(job: list[CacheEntry]) -> dict[Path, Sums]:
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


def write_entry(entry: CacheEntry) -> Sums:
    """Write an entry whole or not at all. Returns the checksums of its arrays. Raises UserError when it
    cannot be written.

    The file is not flushed to the disk, which would take longer than making the entry: what a power cut
    tears is found by its checksums.
    """
    arrays = {**(_kept_arrays(entry) if entry.keep else {}), **entry.arrays}
    members = {name: npy_bytes(array) for name, array in arrays.items() if name != RECIPE}
    sums = {name: zlib.crc32(member) for name, member in members.items()}
    members[RECIPE] = npy_bytes(np.array(json.dumps({**entry.recipe, CHECKSUMS: sums})))
    with whole_file(entry.path, flush=False, otherwise=IN_MEMORY) as temporary:
        temporary.write_bytes(npz_bytes(members))
    return sums


def read_entry(
    path: Path, shapes: Mapping[str, tuple[int, ...] | None], *, sums: Sums | None = None
) -> list[np.ndarray]:
    """The named arrays of an entry that was verified, or that is used without (--skip_cache_check).

    shapes: of each array to be read; None: any.
    sums: the checksums that the arrays had when they were verified or written.
    Raises UserError when an array cannot be read, has another shape, or has changed: a run with other
    settings may write to the same places meanwhile.
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


def _write_jobs(entries: Iterable[CacheEntry]) -> Iterator[list[CacheEntry]]:
    """Entries in jobs for one thread: a handover costs as much as making a small entry.

    When the command is stopped, what was made before is still written.
    """
    job: list[CacheEntry] = []
    stop = None
    try:
        for entry in entries:
            job.append(entry)
            if sum(array.nbytes for one in job for array in one.arrays.values()) >= BYTES_PER_JOB:
                yield job
                job = []
    except KeyboardInterrupt as error:
        stop = error
    if job:
        yield job
    if stop is not None:
        raise stop


def _kept_arrays(entry: CacheEntry) -> dict[str, np.ndarray]:
    """What its file holds, unless another run has replaced it since it was verified."""
    with suppress(OSError, BrokenArrays):
        arrays, sums = read_npz(entry.path)
        recipe = recipe_of(arrays, sums)
        return arrays if recipe is not None and why_stale(recipe, entry.recipe) is None else {}
    return {}
