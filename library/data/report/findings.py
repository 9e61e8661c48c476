"""Lists of files on the page: pictures left out or of odd sizes, captions without a picture, and so on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from library.data.buckets import Size
from library.data.config.specs import SubsetSpec
from library.data.scan.folders import is_image_name, list_folder
from library.data.scan.records import Record
from library.data.scan.sources import caption_name
from library.data.summary import LARGE_ASPECT, LARGE_CUT, LARGE_ENLARGEMENT, cut_off
from library.data.training_data import TrainingData
from library.problems import Problems


@dataclass(frozen=True)
class Finding:
    """What can be said about some files, each with a remark that may be empty. kind: what they are."""

    text: str
    files: tuple[tuple[str, str], ...]
    kind: str = "picture"


def all_findings(data: TrainingData) -> list[Finding]:
    """Every list that has something in it."""
    held_out = data.validation.records if data.validation else []
    scans = {scan.subset.source: scan for dataset in data.datasets for scan in dataset.scans}.values()
    found = [
        Finding("left out, because they cannot be used", tuple((p.where, p.cause) for p in data.bad_images)),
        *odd_sizes([*data.records, *held_out]),
        *caption_files([scan.subset for scan in scans]),
    ]
    return [finding for finding in found if finding.files]


def every_record(data: TrainingData) -> list[Record]:
    """Of all that was scanned: trained on, left out of a balance, or held out."""
    parts = [data] if data.validation is None else [data, data.validation]
    scans = [scan for part in parts for dataset in part.datasets for scan in dataset.scans]
    return [record for scan in scans for record in scan.records]


def file_name(record: Record) -> str:
    """The image's path as the page shows it: folder and name, nothing of the machine it is on."""
    folder = record.subset.image_dir
    if folder is None or not record.image.is_relative_to(folder):
        return record.image.name
    return f"{folder.resolve().name}/{record.image.relative_to(folder).as_posix()}"


def odd_sizes(records: Iterable[Record]) -> list[Finding]:
    """Pictures that are enlarged a lot, thin ones, and those of which a lot is cut off; the worst first."""
    records = list(records)
    thin = [(max(r.size) / min(r.size), r) for r in records if max(r.size) > LARGE_ASPECT * min(r.size)]
    enlarged = [(enlargement(r), r) for r in records if enlargement(r) > LARGE_ENLARGEMENT]
    cut = [(cut_off(r), r) for r in records if cut_off(r) > LARGE_CUT]
    return [
        Finding(
            "more than four times as long as wide",
            _worst_first(thin, lambda r, aspect: f"{_size(r.size)}, {aspect:.1f} to 1"),
        ),
        Finding(
            "enlarged more than three times",
            _worst_first(enlarged, lambda r, scale: f"{_size(r.size)}, {scale:.1f} times"),
        ),
        Finding(
            "with more than half of their area cut off",
            _worst_first(cut, lambda r, share: f"{_size(r.size)} in {_size(r.fit.bucket)}, {share:.0%} lost"),
        ),
    ]


def caption_files(subsets: Iterable[SubsetSpec]) -> list[Finding]:
    """Of folders with caption files: pictures without one, and caption files without a picture."""
    without, lonely = [], []
    for subset in (subset for subset in subsets if subset.metadata_file is None):
        assert subset.image_dir is not None
        entries = list_folder(subset.image_dir, "image folder", Problems()) or []
        names = {entry.name for entry in entries if entry.is_file()}
        images = [name for name in sorted(names) if is_image_name(name)]
        captions = {
            image: caption_name(Path(image).stem, subset.caption_extension, names) for image in images
        }
        lonely_names = {name for name in names if name.endswith(subset.caption_extension)}
        lonely_names -= {*captions.values(), *images}
        folder = subset.image_dir.resolve().name
        without += [(f"{folder}/{image}", "") for image, caption in captions.items() if caption is None]
        lonely += [(f"{folder}/{name}", "") for name in sorted(lonely_names)]
    return [
        Finding("without a caption file", tuple(without)),
        Finding("without a picture", tuple(lonely), "caption file"),
    ]


def enlargement(record: Record) -> float:
    """How many times wider the image becomes."""
    return record.fit.resized[0] / record.size[0]


def _worst_first(
    found: list[tuple[float, Record]], remark: Callable[[Record, float], str]
) -> tuple[tuple[str, str], ...]:
    found = sorted(found, key=lambda pair: -pair[0])
    return tuple((file_name(record), remark(record, n)) for n, record in found)


def _size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
