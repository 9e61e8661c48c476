"""Files -> records: every image of a subset with its size, its caption and how it is fitted to a bucket.

Only headers and caption files are read. All bad files of a subset are found in one pass.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from library.data.buckets import Fit, Size, bucket_resolutions, cover, fit_to_list, fit_without_enlarging
from library.data.folders import IMAGE_SUFFIXES, describe_folder, is_image_name, list_folder
from library.data.images import read_size
from library.data.metadata import read_metadata
from library.data.specs import DatasetSpec, SubsetSpec
from library.problems import Problems, UserError
from library.text_files import read_text

# Threads hide the latency of a disk; once files are in memory they neither help nor hurt.
THREADS = 8
FILES_PER_JOB = 64
CAPTION_SUFFIXES = (".caption", ".txt")


@dataclass(frozen=True)
class Record:
    """One image: its caption as written, its (width, height) upright, its bucket, and how often an epoch uses
    it.
    """

    image: Path
    caption: str
    size: Size
    fit: Fit
    subset: SubsetSpec
    repeats: int


@dataclass
class SubsetScan:
    """What a subset holds.

    without_caption: images that have none, so that class tokens stand in; empty_captions: images whose
    caption is an empty text; notes: what the user may not expect.
    """

    subset: SubsetSpec
    records: list[Record] = field(default_factory=list)
    without_caption: int = 0
    empty_captions: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """An image to look at: its caption when that is known, else the file to read it from, else neither."""

    image: Path
    caption: str | None = None
    caption_file: Path | None = None


def scan_subset(dataset: DatasetSpec, subset: SubsetSpec, problems: Problems) -> SubsetScan:
    """Every image of the subset in order. Bad files are added to `problems` and left out."""
    scan = SubsetScan(subset)
    if subset.metadata_file is None:
        sources = _sources_in_folder(scan, problems)
    else:
        found = read_metadata(subset, problems)
        sources = [Source(image, caption) for image, caption in found.captions.items()]
        scan.notes.extend(found.notes)
    fit = make_fit(dataset)
    for source, result in _look_at_all(sources):
        if isinstance(result, UserError):
            problems.found.extend(result.problems)
            continue
        size, caption = result
        if caption is None:
            scan.without_caption += 1
            text = subset.class_tokens or ""
        else:
            text = _used_lines(caption, subset.enable_wildcard)
            scan.empty_captions += not text
        scan.records.append(Record(source.image, text, size, fit(size), subset, subset.num_repeats))
    return scan


def make_fit(dataset: DatasetSpec) -> Callable[[Size], Fit]:
    """The function from an image's size to its bucket and resize. Without buckets every image is made to
    cover the resolution and cropped to it.
    """
    if not dataset.enable_bucket:
        return lambda size: Fit(dataset.resolution, cover(size, dataset.resolution))
    step = dataset.bucket_reso_steps
    if dataset.bucket_no_upscale:
        area = dataset.resolution[0] * dataset.resolution[1]
        return functools.lru_cache(4096)(lambda size: fit_without_enlarging(size, area=area, step=step))
    buckets = bucket_resolutions(
        dataset.resolution, shortest=dataset.min_bucket_reso, longest=dataset.max_bucket_reso, step=step
    )
    return functools.lru_cache(4096)(lambda size: fit_to_list(size, buckets))


def _look_at_all(sources: list[Source]) -> Iterator[tuple[Source, tuple[Size, str | None] | UserError]]:
    """Each source with its size and caption, or with what is wrong with it, in order."""
    jobs = [sources[start : start + FILES_PER_JOB] for start in range(0, len(sources), FILES_PER_JOB)]
    with ThreadPoolExecutor(THREADS) as pool:
        for job, results in zip(jobs, pool.map(_look_at_job, jobs), strict=True):
            yield from zip(job, results, strict=True)


def _look_at_job(job: list[Source]) -> list[tuple[Size, str | None] | UserError]:
    return [_look_at(source) for source in job]


def _look_at(source: Source) -> tuple[Size, str | None] | UserError:
    problems = Problems()
    size = problems.attempt(read_size, source.image)
    caption = source.caption
    if source.caption_file is not None:
        caption = problems.attempt(read_text, source.caption_file)
    return UserError(problems.found) if problems.found else (size, caption)


def _used_lines(caption: str, is_wildcard: bool) -> str:
    """The first line with text; with wildcards all of them, as alternatives."""
    lines = [line.strip() for line in caption.splitlines() if line.strip()]
    return "\n".join(lines if is_wildcard else lines[:1])


def _sources_in_folder(scan: SubsetScan, problems: Problems) -> list[Source]:
    """The images of a folder with their caption files."""
    folder = scan.subset.image_dir
    assert folder is not None
    entries = list_folder(folder, "image folder", problems)
    if entries is None:
        return []
    names = {entry.name for entry in entries if entry.is_file()}
    images = [folder / entry.name for entry in entries if is_image_name(entry.name) and entry.name in names]
    if not images:
        problems.add(
            folder, f"has no images ({' '.join(IMAGE_SUFFIXES)}); {describe_folder(entries)}", "add some"
        )
    _find_same_stems(images, problems)
    suffix = scan.subset.caption_extension
    sources = [Source(image, caption_file=_caption_file(image, suffix, names)) for image in images]
    _note_other_captions(scan, names, sources)
    return sources


def _caption_file(image: Path, suffix: str, names: set[str]) -> Path | None:
    """`<stem><suffix>`, or for a face crop `<name>_<cx>_<cy>_<w>_<h>` the caption of the whole picture."""
    stem = image.stem
    if stem + suffix in names:
        return image.with_name(stem + suffix)
    parts = stem.split("_")
    whole = "_".join(parts[:-4]) + suffix
    return image.with_name(whole) if len(parts) >= 5 and whole in names else None


def _find_same_stems(images: list[Path], problems: Problems) -> None:
    by_stem: defaultdict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
    for same in by_stem.values():
        if len(same) > 1:
            others = " and ".join(image.name for image in same[1:])
            cause = f"shares its name, and so its caption, with {others}"
            problems.add(same[0], cause, "rename or remove all but one")


def _note_other_captions(scan: SubsetScan, names: set[str], sources: list[Source]) -> None:
    """Captions with another suffix than the one looked for are most likely meant to be used."""
    subset = scan.subset
    stems = [source.image.stem for source in sources if source.caption_file is None]
    others = Counter(other for other in CAPTION_SUFFIXES for stem in stems if stem + other in names)
    for other, count in others.items():
        scan.notes.append(
            f"{subset.source}: {count} {other} files are not used, captions are read from"
            f" {subset.caption_extension} files; --caption_extension {other} uses them"
        )
