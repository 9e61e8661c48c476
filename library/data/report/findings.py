"""Lists of files on the page: pictures left out or of odd sizes, captions without a picture, and so on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from library.data.config.specs import SubsetSpec
from library.data.report.inspection import Inspection
from library.data.scan.folders import list_folder
from library.data.scan.image_sources import pair_captions
from library.data.scan.records import Record
from library.data.summary import odd_shapes
from library.data.training_data import TrainingData
from library.problems import Problems


@dataclass(frozen=True)
class Finding:
    """Something about some files.

    text: what it is.
    files: (name, remark) of each; the remark may be empty.
    kind: what the files are.
    is_warning: whether it is a warning too, besides those of `warning_lines`.
    """

    text: str
    files: tuple[tuple[str, str], ...]
    kind: str = "picture"
    is_warning: bool = False


def all_findings(data: TrainingData, inspection: Inspection | None = None) -> list[Finding]:
    """Every finding about at least one file."""
    held_out = data.validation.records if data.validation else []
    scans = {scan.subset.source: scan for dataset in data.datasets for scan in dataset.scans}.values()
    found = [
        Finding("left out, because they cannot be used", tuple((p.where, p.cause) for p in data.bad_images)),
        *(
            Finding(kind, tuple((file_name(record), remark) for record, remark in odd))
            for kind, odd in odd_shapes([*data.records, *held_out]).items()
        ),
        *(partly_trained(data, inspection) if inspection else ()),
        *caption_files([scan.subset for scan in scans]),
    ]
    return [finding for finding in found if finding.files]


def every_record(data: TrainingData) -> list[Record]:
    """The records of all that was scanned: trained on, left out to balance, or held out."""
    parts = [data] if data.validation is None else [data, data.validation]
    scans = [scan for part in parts for dataset in part.datasets for scan in dataset.scans]
    return [record for scan in scans for record in scan.records]


def file_name(record: Record) -> str:
    """The image's path as the page shows it: folder and name, nothing else of the machine."""
    folder = record.subset.image_dir
    if folder is None or not record.image.is_relative_to(folder):
        return record.image.name
    return f"{folder.resolve().name}/{record.image.relative_to(folder).as_posix()}"


def partly_trained(data: TrainingData, inspection: Inspection) -> list[Finding]:
    """Pictures with transparent parts or several frames."""
    clear, names = inspection.transparent, {r.image: file_name(r) for r in every_record(data)}
    masked = {r.image for r in every_record(data) if r.subset.alpha_mask and r.hint is None}

    def finding(text: str, paths: Iterable[Path], *, is_warning: bool = True) -> Finding:
        return Finding(text, tuple((names[path], "") for path in paths), is_warning=is_warning)

    as_masks = [path for path in clear if path in masked]
    return [
        finding("with transparent parts, which are trained as white", [p for p in clear if p not in masked]),
        finding("with transparent parts, which do not count in the loss", as_masks, is_warning=False),
        finding(
            "with several frames, of which only the first is trained", inspection.animated, is_warning=False
        ),
    ]


def caption_files(subsets: Iterable[SubsetSpec]) -> list[Finding]:
    """In folders with caption files: pictures without one, and caption files without a picture."""
    without: list[tuple[str, str]] = []
    lonely: list[tuple[str, str]] = []
    for subset in (subset for subset in subsets if subset.metadata_file is None):
        assert subset.image_dir is not None
        entries = list_folder(subset.image_dir, "image folder", Problems()) or []
        files, folder = pair_captions(entries, subset.caption_extension), subset.image_dir.resolve().name
        without += [(f"{folder}/{image}", "") for image in files.without_caption]
        lonely += [(f"{folder}/{name}", "") for name in files.lonely_captions]
    return [
        Finding("without a caption file", tuple(without)),
        Finding("without a picture", tuple(lonely), "caption file"),
    ]
