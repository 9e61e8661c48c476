"""Settings that have no effect on these images and captions, though they might on others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from library.data.pictures.augmentation import face_of
from library.data.scan.folders import name_some
from library.data.scan.records import Record, SubsetScan


def note_unused(scans: Iterable[SubsetScan]) -> None:
    """Add a note about each setting that has no effect on any image it is meant for, to the first of their
    scans.
    """
    meant: dict[tuple[str, Any], list[SubsetScan]] = {}
    for scan in scans:
        for key in _USES:
            if scan.records and (value := getattr(scan.subset, key)):
                meant.setdefault((key, value), []).append(scan)
    for (key, value), found in meant.items():
        uses, what = _USES[key]
        if not any(uses(record, value) for scan in found for record in scan.records):
            sources = name_some(list(dict.fromkeys(str(scan.subset.source) for scan in found)))
            found[0].notes.append(f"{sources}: {key} has no effect: {what.format(repr(value))}")


def _has_mark(record: Record, mark: str) -> bool:
    return mark in record.caption


def _has_second_mark(record: Record, mark: str) -> bool:
    texts = record.caption, record.subset.caption_prefix, record.subset.caption_suffix
    return any(mark in text for text in texts if text)


def _has_face(record: Record, _: tuple[float, float]) -> bool:
    return face_of(record.image) is not None


# Key -> (whether its value has an effect on an image, what is said when it has none on any).
_USES: dict[str, tuple[Callable[[Record, Any], bool], str]] = {
    "keep_tokens_separator": (_has_mark, "{} is in no caption"),
    "secondary_separator": (_has_second_mark, "{} is in no caption"),
    "face_crop_aug_range": (_has_face, "no file name ends in a face, such as ..._0200_0150_0064_0064"),
}
