"""Files -> records: every image of a subset with its size, its caption and how it is fitted to a bucket.

Images are not decoded unless something about them is odd. One pass finds all bad files of a subset.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from library.data.buckets import Fit, Size, bucket_resolutions, cover, fit_to_list, fit_without_enlarging
from library.data.captions import caption_lines, read_caption, used_lines
from library.data.config.specs import DatasetSpec, SubsetSpec
from library.data.pictures.bad_images import MAX_PIXELS
from library.data.pictures.images import check_hint, check_holes
from library.data.pictures.integrity import inspect, look_at
from library.data.scan.folders import name_some
from library.data.scan.hints import Spare, pair_with_hints
from library.data.scan.image_sources import ImageSource, sources_in_folder
from library.data.scan.index import Index
from library.data.scan.metadata import read_metadata
from library.problems import Problem, Problems
from library.wording import counted

# Threads hide the latency of a disk. For files in memory they neither help nor hurt.
THREADS = 8
FILES_PER_JOB = 64


@dataclass(frozen=True)
class Record:
    """One image.

    caption: as written, before the caption pipeline.
    size: (width, height) of the upright image.
    fit: its bucket, and how it is resized to it.
    repeats: how often an epoch uses it.
    hint: its conditioning image, if it has one.
    holes: the mask of what an inpainting model paints anew, if a file has it.
    """

    image: Path
    caption: str
    size: Size
    fit: Fit
    subset: SubsetSpec
    repeats: int
    hint: Path | None = None
    holes: Path | None = None


class HasRecords(Protocol):
    """What has images: `TrainingData`, or several of them together."""

    @property
    def records(self) -> Sequence[Record]: ...


@dataclass
class SubsetScan:
    """What a subset holds.

    without_caption: number of images without a caption, which train with class tokens.
    empty_captions: number of images whose caption is an empty text.
    cut_captions: number of images whose caption has more lines with text than are used.
    animated: names of images with several frames or pages, of which the first is used.
    bad_images: why images were left out that cannot be used.
    spare_hints: paths of conditioning images and masks that belong to none of its images, by their folder.
    notes: what the user may not expect.
    """

    subset: SubsetSpec
    records: list[Record] = field(default_factory=list)
    without_caption: int = 0
    empty_captions: int = 0
    cut_captions: int = 0
    animated: list[str] = field(default_factory=list)
    bad_images: list[Problem] = field(default_factory=list)
    spare_hints: Spare = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ScanRules:
    """What holds for all subsets of a run.

    min_side: in pixels; an image with a shorter side is bad.
    skips_bad: whether bad images are left out instead of being problems.
    needs_captions: whether an image without a caption is a problem.
    folders: all folders that the run's subsets name.
    writes: whether the index may be written.
    """

    min_side: int = 1
    skips_bad: bool = False
    needs_captions: bool = False
    folders: frozenset[Path] = frozenset()
    writes: bool = True


class Seen(NamedTuple):
    """What the scan of an image found.

    size: (width, height); None when the image cannot be read.
    text: of its caption.
    has_more_frames: whether it is an animation, of which the first frame is used.
    bad: why the image, or its conditioning image, cannot be used.
    problems: what else is wrong.
    """

    size: Size | None
    text: str | None
    has_more_frames: bool = False
    bad: list[Problem] = []
    problems: list[Problem] = []


def scan_subset(
    datasets: Sequence[DatasetSpec], subset: SubsetSpec, problems: Problems, rules: ScanRules
) -> SubsetScan:
    """Every image of the subset in order, fitted to the first of `datasets`. What is wrong is added to
    `problems` and left out.

    datasets: those that the subset is in, one for each resolution. An image too thin for one of them is left
        out of all, so that the same images are held out at each resolution.
    """
    scan = SubsetScan(subset)
    sources = _find_sources(scan, problems, rules)
    index = Index.open(subset, scan.notes)
    fits = [make_fit(dataset) for dataset in datasets]
    for source, seen in _scan_images(sources, index):
        seen = _check_shape(source, seen, rules.min_side, fits)
        if seen.bad:
            (scan.bad_images if rules.skips_bad else problems.found).extend(seen.bad)
        if not (seen.bad and rules.skips_bad):
            problems.found.extend(seen.problems)
        if seen.size is None or seen.bad or seen.problems:
            continue
        caption = _caption(scan, seen.text)
        index.keep(source, seen.size, caption, seen.text, has_more_frames=seen.has_more_frames)
        if seen.has_more_frames:
            scan.animated.append(source.image.name)
        scan.records.append(_record(source, seen.size, caption, fits[0](seen.size), subset))
    if rules.writes:
        index.save(scan.notes)
    return scan


def _record(source: ImageSource, size: Size, caption: str, fit: Fit, subset: SubsetSpec) -> Record:
    hint, holes = (None if found is None else Path(found.path) for found in (source.hint, source.holes))
    return Record(source.image, caption, size, fit, subset, subset.num_repeats, hint, holes)


def refit(scan: SubsetScan, dataset: DatasetSpec) -> SubsetScan:
    """The same images for a dataset of another resolution."""
    fit = make_fit(dataset)
    return replace(scan, records=[replace(record, fit=fit(record.size)) for record in scan.records])


def make_fit(dataset: DatasetSpec) -> Callable[[Size], Fit]:
    """The function from an image's size to its fit. Without buckets, every image is resized to cover the
    resolution and cropped to it.
    """
    if not dataset.enable_bucket:
        return functools.lru_cache(4096)(
            lambda size: Fit(dataset.resolution, cover(size, dataset.resolution))
        )
    step = dataset.bucket_reso_steps
    if dataset.bucket_no_upscale:
        area = dataset.resolution[0] * dataset.resolution[1]
        return functools.lru_cache(4096)(lambda size: fit_without_enlarging(size, area=area, step=step))
    buckets = bucket_resolutions(
        dataset.resolution, shortest=dataset.min_bucket_reso, longest=dataset.max_bucket_reso, step=step
    )
    return functools.lru_cache(4096)(lambda size: fit_to_list(size, buckets))


def _find_sources(scan: SubsetScan, problems: Problems, rules: ScanRules) -> list[ImageSource]:
    subset = scan.subset
    if subset.metadata_file is None:
        sources = sources_in_folder(subset, problems, scan.notes, folders=rules.folders)
    else:
        found = read_metadata(subset, problems)
        scan.cut_captions = found.cut_captions
        scan.notes.extend(found.notes)
        sources = [ImageSource(image, caption) for image, caption in found.captions.items()]
    if rules.needs_captions:
        _find_uncaptioned(subset, sources, problems)
    sources, scan.spare_hints = pair_with_hints(sources, subset, problems)
    return sources


def _find_uncaptioned(subset: SubsetSpec, sources: list[ImageSource], problems: Problems) -> None:
    without = [source.image.name for source in sources if source.caption is source.caption_file is None]
    if without:
        has = f"{len(without)} of {counted(len(sources), 'image')} {'has' if len(without) == 1 else 'have'}"
        cause = f"{has} no {subset.caption_extension} file, which --fine_tuning needs: {name_some(without)}"
        problems.add(subset.source, cause, "write them, or give their suffix with --caption_extension")


def _scan_images(sources: list[ImageSource], index: Index) -> Iterator[tuple[ImageSource, Seen]]:
    """Each source with what the index knows about it, or else with what its files say."""
    known = [index.find(source) for source in sources]
    new = [source for source, found in zip(sources, known, strict=True) if found is None]
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [new[start : start + FILES_PER_JOB] for start in range(0, len(new), FILES_PER_JOB)]
        scanned = (seen for job in pool.map(_scan_job, jobs) for seen in job)
        for source, found in zip(sources, known, strict=True):
            yield source, next(scanned) if found is None else Seen(*found)


def _scan_job(job: list[ImageSource]) -> list[Seen]:
    return [_scan_image(source) for source in job]


def _scan_image(source: ImageSource) -> Seen:
    bad, problems = Problems(), Problems()
    size, has_more_frames = bad.attempt(look_at, source.image) or (None, False)
    text = source.caption
    if source.caption_file is not None:
        text = problems.attempt(_read_lines, Path(source.caption_file.path))
    for found in (source.hint, source.holes):
        hint_size = None if found is None else bad.attempt(inspect, found.path)
        if found is not None and size is not None and hint_size is not None:
            problems.attempt(check_hint, size, hint_size, found.path, source.image)
    if (source.holes is not None or source.has_holes) and not bad.found:
        bad.attempt(
            check_holes, source.image if source.holes is None else source.holes.path, source.has_holes
        )
    return Seen(size, text, has_more_frames, bad.found, problems.found)


def _read_lines(path: Path) -> str:
    return "\n".join(caption_lines(read_caption(path)))


def _check_shape(source: ImageSource, seen: Seen, min_side: int, fits: list[Callable[[Size], Fit]]) -> Seen:
    """What was seen, with what is wrong with the image's size."""
    if seen.size is None:
        return seen
    cause = f"is {seen.size[0]}x{seen.size[1]}: "
    width, height = max((fit(seen.size).resized for fit in fits), key=math.prod)
    if min(seen.size) < min_side:
        cause += f"a side is shorter than --min_image_side {min_side}"
    elif width * height > MAX_PIXELS:
        cause += f"too thin to train on; to fill its bucket it would be enlarged to {width}x{height}"
    else:
        return seen
    return seen._replace(bad=[*seen.bad, Problem(str(source.image), cause, "replace or remove it")])


def _caption(scan: SubsetScan, text: str | None) -> str:
    """The caption to train with. Missing and empty ones are counted."""
    if text is None:
        scan.without_caption += 1
        return scan.subset.class_tokens or ""
    scan.empty_captions += not text
    if "\n" not in text:
        return text
    used = used_lines(text, scan.subset.enable_wildcard)
    scan.cut_captions += used.count("\n") < used_lines(text, True).count("\n")
    return used
