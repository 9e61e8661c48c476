"""Metadata JSON of the fine-tuning method: {image key: {"caption": ..., "tags": ...}}.

A key is an absolute path, a path relative to the image folder or to the working folder, or (as the caption
tools write by default) a path in the image folder without its suffix.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from library.data.captions import with_tags
from library.data.folders import is_image_name, is_system_name
from library.data.specs import SubsetSpec
from library.problems import Problems, UserError
from library.text_files import read_text


@dataclass
class Metadata:
    """captions: the text by image path, None where the entry has neither caption nor tags; notes: what the
    user may not expect.
    """

    captions: dict[Path, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_metadata(subset: SubsetSpec, problems: Problems) -> Metadata:
    """The images that the subset's metadata file names, in its order. Problems with the file, with entries
    and with keys that lead to no image are added to `problems`.
    """
    assert subset.metadata_file is not None
    content = problems.attempt(_parse, subset.metadata_file)
    if content is None or not _folder_exists(subset, problems):
        return Metadata()
    lookup = _Lookup(subset.image_dir)
    found, missing = Metadata(), []
    for key, entry in content.items():
        images = lookup.find(key)
        if not images:
            missing.append(key)
        elif len(images) > 1:
            cause = f'"{key}" may be {" or ".join(image.name for image in images)}'
            problems.add(subset.metadata_file, cause, "write the key with its suffix")
        if not isinstance(entry, dict) or not all(_is_text(entry.get(k)) for k in ("caption", "tags")):
            problems.add(subset.metadata_file, f'entry "{key}" must be {{"caption": text, "tags": text}}')
        elif len(images) == 1:
            found.captions[images[0]] = _caption(entry, subset)
    if missing:
        problems.add(subset.metadata_file, *_explain_missing(missing, len(content), subset))
    _note_unlisted(found, lookup, subset)
    return found


def _parse(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".jsonl":
        raise UserError.of(path, "metadata in .jsonl is not available yet", "use .json")
    text = read_text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError.of(path, f"is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise UserError.of(
            path, 'must hold {"image": {"caption": text, "tags": text}, ...} with one image or more'
        )
    return content


def _folder_exists(subset: SubsetSpec, problems: Problems) -> bool:
    if subset.image_dir is None or subset.image_dir.is_dir():
        return True
    problems.add(f"image folder {subset.image_dir}", "there is no such folder")
    return False


class _Listing(NamedTuple):
    """Images of a folder: by name, and by stem all that share it."""

    by_name: dict[str, Path]
    by_stem: dict[str, list[Path]]


class _Lookup:
    """Keys -> image paths. Each folder is listed once."""

    def __init__(self, image_dir: Path | None) -> None:
        self.image_dir = image_dir or Path()
        self.listings: dict[Path, _Listing] = {}

    def find(self, key: str) -> list[Path]:
        """The image, or none; several when the key is a stem that they share."""
        for path in (self.image_dir / key, Path(key)):
            image = self.listing(path.parent).by_name.get(path.name)
            if image is not None:
                return [image]
        path = self.image_dir / key
        return self.listing(path.parent).by_stem.get(path.name, [])

    def listing(self, folder: Path) -> _Listing:
        if folder not in self.listings:
            listing = self.listings[folder] = _Listing({}, {})
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if is_image_name(path.name) and not is_system_name(path.name):
                    listing.by_name[path.name] = path
                    listing.by_stem.setdefault(path.stem, []).append(path)
        return self.listings[folder]


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _caption(entry: dict[str, Any], subset: SubsetSpec) -> str | None:
    caption, tags = entry.get("caption"), entry.get("tags")
    if caption is None and tags is None:
        return None
    return with_tags(caption or "", tags or "", subset.caption_separator, every_line=subset.enable_wildcard)


def _explain_missing(missing: list[str], total: int, subset: SubsetSpec) -> tuple[str, str]:
    """Cause and fix: one line for all keys, not thousands."""
    names = ", ".join(f'"{key}"' for key in missing[:3]) + (", ..." if len(missing) > 3 else "")
    cause = f"no image was found for {len(missing)} of {total} entries: {names}"
    if subset.image_dir is None:
        return cause, "set image_dir, the folder that the entries are relative to"
    return cause, f"entries are looked up in {subset.image_dir}"


def _note_unlisted(found: Metadata, lookup: _Lookup, subset: SubsetSpec) -> None:
    if subset.image_dir is None or not found.captions:
        return
    unlisted = len(set(lookup.listing(subset.image_dir).by_name.values()) - set(found.captions))
    if unlisted:
        found.notes.append(
            f"{subset.source}: {unlisted} images in {subset.image_dir} have no entry and are not used"
        )
