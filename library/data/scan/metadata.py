"""The images that a metadata file names, and what it says about them.

A key is an absolute path, a path relative to the image folder or to the working folder, or (as the caption
tools write by default) a path in the image folder without its suffix.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from library.data.captions import LONGEST_CAPTION, caption_lines, with_tags
from library.data.config.specs import SubsetSpec
from library.data.scan.folders import is_image_name, is_system_name, name_some, stem_of
from library.data.scan.metadata_file import MetadataEntry, Repetitive, read_entries
from library.paths import LONGEST_PATH, is_utf8
from library.problems import Problems


@dataclass
class Metadata:
    """What a metadata file says.

    captions: the text by image path; None where the entry has neither caption nor tags.
    notes: what the user may not expect.
    cut_captions: how many captions with tags lost all lines but the first.
    """

    captions: dict[Path, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cut_captions: int = 0


def read_metadata(subset: SubsetSpec, problems: Problems) -> Metadata:
    """The images that the subset's metadata file names, in its order. Problems of the file, of entries and of
    keys that lead to no image are added to `problems`, one line for each kind.
    """
    assert subset.metadata_file is not None
    entries = read_entries(subset.metadata_file, problems)
    if not entries or not _folder_exists(subset, problems):
        return Metadata()
    lookup, reading = _Lookup(subset.image_dir), _Reading(subset)
    for entry in entries:
        reading.take(entry, lookup)
    reading.report(len(entries), problems)
    notes = [*reading.notes(), *_unlisted(subset, set(reading.captions), lookup)]
    return Metadata(reading.captions, notes, reading.cut_captions)


def _folder_exists(subset: SubsetSpec, problems: Problems) -> bool:
    if subset.image_dir is None or subset.image_dir.is_dir():
        return True
    problems.add(f"image folder {subset.image_dir}", "there is no such folder")
    return False


class _Reading:
    """The entries read so far: captions by image, and odd entries by kind."""

    def __init__(self, subset: SubsetSpec) -> None:
        self.subset = subset
        self.captions: dict[Path, str | None] = {}
        self.first: dict[Path, MetadataEntry] = {}
        self.odd: defaultdict[str, list[str]] = defaultdict(list)
        self.cut_captions = 0

    def take(self, entry: MetadataEntry, lookup: _Lookup) -> None:
        images, is_moved = lookup.find(entry.key) if len(entry.key) <= LONGEST_PATH else ([], False)
        if not images:
            self.odd["missing"].append(str(entry))
        elif len(images) > 1:
            names = " or ".join(image.name for image in images)
            self.odd["unclear"].append(f"{entry} is {names}")
        if not _is_sound(entry.content):
            self.odd["unsound"].append(str(entry))
        elif _length(entry.content, self.subset) > LONGEST_CAPTION:
            self.odd["long"].append(str(entry))
        elif len(images) == 1:
            if is_moved:
                self.odd["moved"].append(str(entry))
            self._keep(entry, images[0])

    def _keep(self, entry: MetadataEntry, image: Path) -> None:
        caption = _caption(entry.content, self.subset)
        if image not in self.captions:
            self.captions[image], self.first[image] = caption, entry
            lines = caption_lines(entry.content.get("caption") or "")
            self.cut_captions += len(lines) > 1 and "\n" not in (caption or "")
        elif self.captions[image] == caption:
            self.odd["repeated"].append(str(entry))
        else:
            self.odd["contradictory"].append(f"{self.first[image]} and {entry}")

    def report(self, total: int, problems: Problems) -> None:
        assert self.subset.metadata_file is not None
        folder = self.subset.image_dir
        lines = {
            "unsound": ('{} must be {{"caption": text, "tags": text}}, each once', "mend or remove them"),
            "long": (f"{{}} have captions of more than {LONGEST_CAPTION:,} characters", "shorten them"),
            "unclear": ("{} may mean several images", "write the keys with their suffixes"),
            "contradictory": ("{} contradict earlier ones of the same image", "remove one of each"),
            "missing": (
                "no image was found for {}",
                f"they are looked up in {folder}" if folder else "set image_dir, which they are relative to",
            ),
        }
        for kind, (cause, fix) in lines.items():
            if names := self.odd[kind]:
                cause = cause.format(f"{len(names)} of {total} entries")
                problems.add(self.subset.metadata_file, f"{cause}: {name_some(names)}", fix)

    def notes(self) -> Iterator[str]:
        lines = {
            "repeated": "{} entries repeat earlier ones; their images are used once",
            "moved": "{} entries name images that are gone; those of the same names in"
            f" {self.subset.image_dir} are used",
        }
        for kind, line in lines.items():
            if names := self.odd[kind]:
                yield f"{self.subset.source}: {line.format(len(names))}: {name_some(names)}"


def _is_sound(content: Any) -> bool:
    if not isinstance(content, dict) or isinstance(content, Repetitive):
        return False
    return _is_text(content.get("caption")) and _is_text(content.get("tags"))


def _is_text(value: Any) -> bool:
    """Whether it is text, or None. JSON can hold half a character ("\\ud83d"), which no tokenizer accepts."""
    return is_utf8(value) if isinstance(value, str) else value is None


def _length(content: dict[str, Any], subset: SubsetSpec) -> int:
    """How long caption and tags can get together: with wildcards every line gets the tags."""
    caption, tags = content.get("caption") or "", content.get("tags") or ""
    lines = 1 + caption.count("\n") + caption.count("\r") if subset.enable_wildcard else 1
    return len(caption) + lines * len(tags)


def _caption(content: dict[str, Any], subset: SubsetSpec) -> str | None:
    caption, tags = content.get("caption"), content.get("tags")
    if caption is None and tags is None:
        return None
    return with_tags(caption or "", tags or "", subset.caption_separator, every_line=subset.enable_wildcard)


class _Listing(NamedTuple):
    """The images of a folder.

    by_name: by file name.
    by_stem: all that share a name without suffix.
    by_spelling: by both, in a form that is equal for all spellings of a name.
    """

    by_name: dict[str, Path]
    by_stem: dict[str, list[Path]]
    by_spelling: dict[str, list[Path]]


class _Lookup:
    """Keys -> image paths. Each folder is listed once."""

    def __init__(self, image_dir: Path | None) -> None:
        self.image_dir = image_dir
        self.listings: dict[Path, _Listing] = {}
        self.moved: dict[PurePosixPath | PureWindowsPath, Path | None] = {}

    def find(self, key: str) -> tuple[list[Path], bool]:
        """The images that a key may mean: none, one, or several that share a stem. And whether they are not
        where the key says because the folder has been moved.
        """
        keys = [key, key.replace("\\", "/")] if "\\" in key else [key]
        for place in keys:
            if found := self._first([(self.image_dir or Path()) / place, Path(place)]):
                return found, False
        folder = self._moved_folder(keys[-1])
        found = [] if folder is None else self._first([folder / PurePosixPath(keys[-1]).name])
        return found, bool(found)

    def _first(self, paths: list[Path]) -> list[Path]:
        """The images at one of the paths: of that name, else of that stem, else of another spelling."""
        for path in paths:
            if image := self.listing(path.parent).by_name.get(path.name):
                return [image]
        for path in paths:
            if images := self.listing(path.parent).by_stem.get(path.name):
                return images
        for path in paths:
            if images := self.listing(path.parent).by_spelling.get(_spelling(path.name)):
                return images
        return []

    def _moved_folder(self, key: str) -> Path | None:
        """The folder inside the image folder whose path ends as that of an absolute key's folder."""
        parent = PurePosixPath(key).parent if key.startswith("/") else PureWindowsPath(key).parent
        if self.image_dir is None or not parent.is_absolute():
            return None
        if parent not in self.moved:
            tails = [self.image_dir.joinpath(*parent.parts[n:]) for n in range(1, len(parent.parts) + 1)]
            self.moved[parent] = next(tail for tail in tails if tail.is_dir())
        return self.moved[parent]

    def listing(self, folder: Path) -> _Listing:
        if folder not in self.listings:
            self.listings[folder] = _list(folder)
        return self.listings[folder]


def _list(folder: Path) -> _Listing:
    listing = _Listing({}, {}, {})
    try:
        paths = sorted(folder.iterdir())
    except (OSError, ValueError):  # there is no such folder, or there cannot be one
        return listing
    for path in paths:
        name = path.name
        if is_image_name(name) and not is_system_name(name):
            listing.by_name[name] = path
            listing.by_stem.setdefault(stem_of(name), []).append(path)
            for spelling in (name, stem_of(name)):
                listing.by_spelling.setdefault(_spelling(spelling), []).append(path)
    return listing


def _spelling(name: str) -> str:
    """Windows does not distinguish A from a, macOS not an accented letter from a letter and an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def _unlisted(subset: SubsetSpec, listed: set[Path], lookup: _Lookup) -> Iterator[str]:
    if subset.image_dir is None or not listed:
        return
    folders = {subset.image_dir, *(path.parent for path in listed)}
    inside = [folder for folder in folders if folder.is_relative_to(subset.image_dir)]
    names = {path for folder in inside for path in lookup.listing(folder).by_name.values()} - listed
    if names:
        yield f"{subset.source}: {len(names)} images in {subset.image_dir} have no entry and are not used"
