"""The index of an image folder, `metadata_cache.json`: sizes and captions as an earlier scan found them.

The file is that of sd-scripts' `cache_info`: {image path: {"caption": text, "resolution": [width, height]}}.
Two more fields make an entry trustworthy: "made_from", the names, sizes and times of change of its files, and
"text", what the caption file holds, where that is not the caption (null when there is no such file).
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
from library.data.scan.sources import Source
from library.files import whole_file
from library.problems import UserError
from library.text_files import read_text

NAME = "metadata_cache.json"
# What an entry says about the same files may change with the program; then this does too.
VERSION = "1"
# A file may change once more within its file system's clock tick (2 s on FAT) and look the same: entries of
# files younger than this, in nanoseconds, are not trusted.
TICK = 2_000_000_000

Entries = dict[str, dict[str, Any]]


@dataclass
class Index:
    """What is known about a folder's images. Without a path it knows nothing and keeps nothing.

    known: the file's entries by image path; kept: those it will have; stamps: "made_from" of the images that
    were asked for, empty where it says nothing.
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
        """The subset's index; one that knows nothing unless `cache_info` asks for it. A file that cannot be
        used is noted and will be replaced.
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

    def find(self, source: Source) -> tuple[Size, str | None] | None:
        """The size and the caption file's text (see `keep`) of a source whose files are still the same, else
        None.
        """
        if self.path is None:
            return None
        assert source.listed is not None
        key = self.prefix + source.listed.name
        stamp = self.stamps[key] = _stamp(source, self.oldest)
        entry = self.known.get(key)
        return _content(entry) if stamp and _made_from(entry) == stamp else None

    def keep(self, source: Source, size: Size, caption: str, text: str | None) -> None:
        """Take what was found out about a source, after `find` was asked for it.

        caption: what is trained on; text: the lines of the caption file, None when there is none.
        """
        if self.path is None:
            return
        assert source.listed is not None
        key = self.prefix + source.listed.name
        stamp, entry = self.stamps[key], self.known.get(key)
        if not stamp or _made_from(entry) != stamp or entry.get("caption") != caption:
            entry = {"caption": caption, "resolution": [*size]}
            entry |= {"made_from": stamp} if stamp else {}
            entry |= {"text": text} if text != caption else {}
        self.kept[key] = entry

    def save(self, notes: list[str]) -> None:
        """Write the file if it is to say anything else than before; a folder that cannot be written to is
        noted.
        """
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


def _content(entry: dict[str, Any]) -> tuple[Size, str | None] | None:
    """Size and text of an entry; None when somebody has spoilt it."""
    try:
        (width, height), caption = entry["resolution"], entry["caption"]
    except (KeyError, TypeError, ValueError):
        return None
    text = entry.get("text", caption)
    is_sound = isinstance(width, int) and isinstance(height, int) and isinstance(caption, str)
    return ((width, height), text) if is_sound and isinstance(text, str | None) else None


def _stamp(source: Source, oldest: int) -> str:
    """What the source's files look like from outside; empty when that does not tell whether they changed."""
    stamp = VERSION
    for file in (source.listed, source.caption_file, source.hint):
        if file is not None:
            try:
                status = file.stat()
            except OSError:
                return ""
            if status.st_mtime_ns > oldest:
                return ""
            stamp += f"/{file.name}/{status.st_size}/{status.st_mtime_ns}"
    return stamp
