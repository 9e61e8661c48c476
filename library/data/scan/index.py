"""The index of an image folder, `metadata_cache.json`: sizes and captions as an earlier scan found them.

The file is that of sd-scripts' `cache_info`: {image path: {"caption": text, "resolution": [width, height]}}.
More fields let an entry be verified: "made_from", the names, sizes and modification times of its files,
and "text", the content of the caption file where that differs from the caption (null without such a file).
"animated" is true of an image with several frames.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.data.buckets import Size
from library.data.config.specs import SubsetSpec
from library.data.scan.image_sources import ImageSource
from library.files import whole_file
from library.problems import UserError
from library.text_files import read_text

NAME = "metadata_cache.json"
# Raise it when the program would say something else about the same files.
VERSION = "1"
# Nanoseconds. A file may change again within one clock tick of its file system (2 s on FAT) and look the
# same, so entries of files younger than this are not trusted.
TICK = 2_000_000_000

# The fields of an entry by name; those of a file may hold anything.
Fields = dict[str, Any]
Entries = dict[str, Fields]


@dataclass
class Index:
    """What is known about a folder's images. Without a path it knows nothing and keeps nothing.

    known: the file's entries by image path.
    kept: the entries that the file will have.
    stamps: "made_from" of the images that `find` was asked for; empty where it could not be trusted.
    oldest: the modification time, in nanoseconds, that files must not be younger than to be trusted.
    """

    path: Path | None
    known: Entries = field(default_factory=dict)
    kept: Entries = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    oldest: int = field(default_factory=lambda: time.time_ns() - TICK)

    def __post_init__(self) -> None:
        self.prefix = f"{self.path.parent}{os.sep}" if self.path else ""

    @classmethod
    def open(cls, subset: SubsetSpec, notes: list[str]) -> Index:
        """The subset's index; without `cache_info`, one that knows nothing. A file that cannot be used is
        noted and will be replaced.
        """
        if not subset.cache_info:
            return cls(None)
        if subset.metadata_file is not None or subset.image_dir is None:
            notes.append(f"{subset.source}: cache_info has no effect on a metadata file")
            return cls(None)
        path = subset.image_dir.absolute() / NAME
        try:
            return cls(path, _read(path) if path.exists() else {})
        except UserError as error:
            notes.append(f"{path}: {error.problems[0].cause}, so every file is read and it is written anew")
            return cls(path)

    def find(self, source: ImageSource) -> tuple[Size, str | None, bool] | None:
        """The size, the caption file's text, and whether there are more frames (see `keep`) of a source whose
        files have not changed, else None.
        """
        if self.path is None:
            return None
        assert source.listed is not None
        key = self.prefix + source.listed.name
        stamp = self.stamps[key] = _stamp(source, self.oldest)
        entry = self.known.get(key)
        return _content(entry) if entry is not None and stamp and _made_from(entry) == stamp else None

    def keep(
        self, source: ImageSource, size: Size, caption: str, text: str | None, *, has_more_frames: bool
    ) -> None:
        """Take in what a scan found about a source. `find` must have been asked for it.

        caption: the caption to train with.
        text: the lines of the caption file; None when there is none.
        has_more_frames: whether it is an animation.
        """
        if self.path is None:
            return
        assert source.listed is not None
        key = self.prefix + source.listed.name
        stamp, entry = self.stamps[key], self.known.get(key)
        if entry is None or not stamp or _made_from(entry) != stamp or entry.get("caption") != caption:
            entry = {"caption": caption, "resolution": [*size]}
            entry |= {"made_from": stamp} if stamp else {}
            entry |= {"text": text} if text != caption else {}
            entry |= {"animated": True} if has_more_frames else {}
        self.kept[key] = entry

    def save(self, notes: list[str]) -> None:
        """Write the file if its content changes. A folder that cannot be written to is noted."""
        if self.path is None or self.kept == self.known:
            return
        try:
            with whole_file(self.path) as temporary:
                temporary.write_text(json.dumps(self.kept), encoding="ascii")
        except UserError as error:
            notes.append(f"{self.path}: {error.problems[0].cause}, so the next start reads every file again")


def _read(path: Path) -> Entries:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError.of(path, f"is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError.of(path, "does not hold captions and sizes by image")
    return content


def _made_from(entry: Any) -> Any:
    return entry.get("made_from") if isinstance(entry, dict) else None


def _content(entry: Fields) -> tuple[Size, str | None, bool] | None:
    """Size and text of an entry, and whether it is an animation; None when it is damaged."""
    try:
        (width, height), caption = entry["resolution"], entry["caption"]
    except (KeyError, TypeError, ValueError):
        return None
    text = entry.get("text", caption)
    is_sound = isinstance(width, int) and isinstance(height, int) and isinstance(caption, str)
    if not is_sound or not isinstance(text, str | None):
        return None
    return (width, height), text, entry.get("animated") is True


def _stamp(source: ImageSource, oldest: int) -> str:
    """Names, sizes and modification times of the source's files; empty when they cannot be trusted."""
    stamp = VERSION
    for file in (source.listed, source.caption_file, source.hint, source.holes):
        if file is not None:
            try:
                status = file.stat()
            except OSError:
                return ""
            if status.st_mtime_ns > oldest:
                return ""
            stamp += f"/{file.name}/{status.st_size}/{status.st_mtime_ns}"
    # A mask was looked at: an image that was scanned without one has another stamp.
    return stamp + ("/holes" if source.holes is not None or source.has_holes else "")
