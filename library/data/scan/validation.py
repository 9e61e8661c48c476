"""Which images of a dataset are held out: not trained on, but used for the validation loss."""

from __future__ import annotations

from dataclasses import replace

from library.data.config.specs import DatasetSpec
from library.data.scan.records import Record, SubsetScan
from library.randomness import keyed_random


def hold_out(spec: DatasetSpec, scans: list[SubsetScan]) -> tuple[list[SubsetScan], list[SubsetScan]]:
    """A dataset's scans, split into (trained on, held out). Held out is the share `validation_split` of the
    images, but never all of them, and no regularization images; their repeats become 1.

    The draw depends only on `validation_seed` and the number of images, so it is the same in every run and
    for every resolution of a dataset.
    """
    count = sum(len(scan.records) for scan in scans if not scan.subset.is_reg)
    wanted = min(round(count * spec.validation_split), count - 1)
    if wanted < 1:
        return scans, []
    chosen = set(keyed_random(spec.validation_seed or 0, "validation split").sample(range(count), wanted))
    trained, held_out, first = [], [], 0
    for scan in scans:
        if scan.subset.is_reg:
            trained.append(scan)
            continue
        trained.append(replace(scan, records=_part(scan.records, first, chosen, is_chosen=False)))
        held = [replace(record, repeats=1) for record in _part(scan.records, first, chosen, is_chosen=True)]
        held_out.append(SubsetScan(scan.subset, held))
        first += len(scan.records)
    return trained, held_out


def _part(records: list[Record], first: int, chosen: set[int], *, is_chosen: bool) -> list[Record]:
    """The records that are chosen, or those that are not. first: the number of the first in its dataset."""
    return [record for number, record in enumerate(records, first) if (number in chosen) == is_chosen]
