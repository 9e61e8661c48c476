"""Images that belong to an image, of the same name in another folder: conditioning images (a mask of the
loss, a pose, edges), and masks of what an inpainting model paints anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from library.data.config.specs import SubsetSpec
from library.data.scan.folders import is_image_name, list_folder, name_some, stem_of
from library.data.scan.image_sources import ImageSource
from library.problems import Problems

Entry = os.DirEntry[str]
Spare = dict[Path, frozenset[str]]  # a folder's paths that belong to none of a subset's images
_MASKS = "inpainting_masks"


def pair_with_hints(
    sources: list[ImageSource], subset: SubsetSpec, problems: Problems
) -> tuple[list[ImageSource], Spare]:
    """The sources with their conditioning images and masks, whose suffixes may differ, and what in their
    folders belongs to none of the sources.

    Missing and ambiguous ones are added to `problems`. Without such folders, the sources are returned
    unchanged.
    """
    spare: Spare = {}
    if (folder := subset.conditioning_data_dir) is not None:
        hints, spare[folder] = _pair(sources, folder, "conditioning_data_dir", problems)
        sources = [source._replace(hint=hint) for source, hint in zip(sources, hints, strict=True)]
    if (folder := subset.mask_folder) is not None:
        masks, spare[folder] = _pair(sources, folder, _MASKS, problems)
        sources = [source._replace(holes=mask) for source, mask in zip(sources, masks, strict=True)]
    elif subset.inpainting_masks == "alpha":
        sources = [source._replace(has_holes=True) for source in sources]
    return sources, spare


def note_spare(folder: Path, spare: Iterable[frozenset[str]]) -> list[str]:
    """A line about images in such a folder that belong to no image. spare: of each subset using it."""
    names = sorted(Path(path).name for path in frozenset.intersection(*spare))
    if not names:
        return []
    return [f"{folder}: {len(names)} conditioning images belong to no image: {name_some(names)}"]


def _pair(
    sources: list[ImageSource], folder: Path, what: str, problems: Problems
) -> tuple[list[Entry | None], frozenset[str]]:
    """For each source the image of its name in the folder, and the paths of those that belong to none.

    what: messages call the folder so.
    """
    before = len(problems.found)
    listing = _list_by_stem(folder, what, problems)
    paired: list[Entry | None] = []
    missing, unclear = [], []
    for source in sources:
        found = listing.pop(source.image.stem, [])
        paired.append(found[0] if len(found) == 1 else None)
        if len(found) > 1:
            unclear.append(" or ".join(entry.name for entry in found))
        elif not found:
            missing.append(source.image.name)
    if len(problems.found) == before:  # else the folder could not be read, and that is reported
        _report(
            folder,
            "mask" if what == _MASKS else "conditioning image",
            len(sources),
            missing,
            unclear,
            problems,
        )
    return paired, frozenset(entry.path for found in listing.values() for entry in found)


def _list_by_stem(folder: Path, what: str, problems: Problems) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in list_folder(folder, what, problems) or ():
        if is_image_name(entry.name) and not entry.is_dir():
            found.setdefault(stem_of(entry.name), []).append(entry)
    return found


def _report(
    folder: Path, what: str, total: int, missing: list[str], unclear: list[str], problems: Problems
) -> None:
    """One line for all that are missing, one for all that are ambiguous."""
    if missing:
        cause = f"there is no {what} for {len(missing)} of {total} images: {name_some(missing)}"
        problems.add(folder, cause, "add images of the same names, or remove those without one")
    if unclear:
        cause = f"{len(unclear)} {what}s are there twice: {name_some(unclear)}"
        problems.add(folder, cause, "remove all but one of each name")
