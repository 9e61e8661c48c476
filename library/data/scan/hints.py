"""Conditioning images: for each image one of the same name in another folder (a mask, a pose, edges)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from library.data.config.specs import SubsetSpec
from library.data.scan.folders import is_image_name, list_folder, name_some, stem_of
from library.data.scan.image_sources import ImageSource
from library.problems import Problems

Entries = list[os.DirEntry[str]]


def pair_with_hints(
    sources: list[ImageSource], subset: SubsetSpec, problems: Problems
) -> tuple[list[ImageSource], frozenset[str]]:
    """The sources with their conditioning images, whose suffixes may differ, and the paths of conditioning
    images that belong to none of the sources.

    Missing and ambiguous ones are added to `problems`. Without a conditioning_data_dir, the sources are
    returned unchanged.
    """
    folder = subset.conditioning_data_dir
    if folder is None:
        return sources, frozenset()
    before = len(problems.found)
    listing = _list_by_stem(folder, problems)
    paired, missing, unclear = [], [], []
    for source in sources:
        found = listing.pop(source.image.stem, [])
        if len(found) == 1:
            paired.append(source._replace(hint=found[0]))
        elif found:
            unclear.append(" or ".join(entry.name for entry in found))
        else:
            missing.append(source.image.name)
    if len(problems.found) == before:  # else the folder could not be read, and that is reported
        _report(folder, len(sources), missing, unclear, problems)
    spare = (entry.path for found in listing.values() for entry in found)
    return paired, frozenset(spare)


def note_spare(folder: Path, spare: Iterable[frozenset[str]]) -> list[str]:
    """A line about a folder's conditioning images that belong to no image. spare: of each subset using it."""
    names = sorted(Path(path).name for path in frozenset.intersection(*spare))
    if not names:
        return []
    return [f"{folder}: {len(names)} conditioning images belong to no image: {name_some(names)}"]


def _list_by_stem(folder: Path, problems: Problems) -> dict[str, Entries]:
    found: dict[str, Entries] = {}
    for entry in list_folder(folder, "conditioning_data_dir", problems) or ():
        if is_image_name(entry.name) and not entry.is_dir():
            found.setdefault(stem_of(entry.name), []).append(entry)
    return found


def _report(folder: Path, total: int, missing: list[str], unclear: list[str], problems: Problems) -> None:
    """One line for all that are missing, one for all that are ambiguous."""
    if missing:
        cause = f"there is no conditioning image for {len(missing)} of {total} images: {name_some(missing)}"
        problems.add(folder, cause, "add images of the same names, or remove those without one")
    if unclear:
        cause = f"{len(unclear)} conditioning images are there twice: {name_some(unclear)}"
        problems.add(folder, cause, "remove all but one of each name")
