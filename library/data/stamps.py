"""What a run's pictures and captions were, so that those edited between a state and its resume are named.

A picture's stamp is its size, its times and a digest of its content. Only where size or times differ is it
read again. Digests are made a few seconds' worth at a time: a state has to be saved at once.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from library.data.scan.records import Record

READERS = 8
_WHOLE = 2**18  # bytes; of a larger file, pieces are read
_PIECE, _PIECES = 2**12, 16

# A file's stamp, as JSON: "bytes", "mtime_ns", "ctime_ns", maybe "digest"; of a picture "caption", a digest.
Stamp = dict[str, Any]


class Edited(NamedTuple):
    """What is not as it was.

    pictures: names of pictures and conditioning images with another content.
    captions: names of pictures with another caption.
    """

    pictures: list[str]
    captions: list[str]


class PictureStamps:
    """The stamps of a run's pictures, conditioning images and masks.

    records: all that the run uses, for training and validation.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        captions: defaultdict[Path, list[str]] = defaultdict(list)
        hints: dict[Path, None] = {}
        for record in records:
            captions[record.image].append(record.caption)
            hints |= {path: None for path in (record.hint, record.holes) if path is not None}
        self._files = _named([*captions, *(hint for hint in hints if hint not in captions)])
        self._captions = {path: _digest_text("\n".join(texts)) for path, texts in captions.items()}
        self._known: dict[str, Stamp] = {}

    def now(self, seconds: float) -> dict[str, Stamp]:
        """The stamp of every file that is there, by folder and name. seconds: for new digests; those without
        one get it in a later call.
        """
        end = time.monotonic() + seconds

        def stamp(name: str) -> Stamp | None:
            path, known = self._files[name], self._known.get(name, {})
            found = _status(path)
            if found is None:
                return None
            if any(known.get(key) != value for key, value in found.items()):
                known = {}
            digest = known.get("digest") or (_digest(path) if time.monotonic() < end else None)
            caption = {"caption": self._captions[path]} if path in self._captions else {}
            return found | caption | ({"digest": digest} if digest else {})

        stamps = zip(self._files, _in_threads(stamp, list(self._files)), strict=True)
        self._known = {name: found for name, found in stamps if found is not None}
        return self._known

    def edited(self, before: Mapping[str, Any]) -> Edited:
        """What was edited since `before`, an earlier run's stamps. Files that only one has do not count."""
        both = [name for name in self._files if isinstance(before.get(name), dict)]
        is_edited = _in_threads(lambda name: _is_edited(self._files[name], before[name]), both)
        captions = [
            name
            for name in both
            if before[name].get("caption") not in (None, self._captions.get(self._files[name]))
        ]
        return Edited([name for name, edited in zip(both, is_edited, strict=True) if edited], captions)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """The paths by the names of their folder and file; what has a name already gets " (2)"."""
    named: dict[str, Path] = {}
    counts: defaultdict[str, int] = defaultdict(int)
    for path in paths:
        name = f"{path.absolute().parent.name}/{path.name}"
        counts[name] += 1
        named[name if counts[name] == 1 else f"{name} ({counts[name]})"] = path
    return named


def _in_threads(work: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(work, names))


def _is_edited(path: Path, before: Stamp) -> bool:
    """Whether the content is another: by size, then times, then digest."""
    status = _status(path)
    if status is None or all(before.get(key) == value for key, value in status.items()):
        return False
    if before.get("bytes") != status["bytes"]:
        return True
    if before.get("digest") is None:
        return before.get("mtime_ns") != status["mtime_ns"]
    return before["digest"] != _digest(path)


def _status(path: Path) -> Stamp | None:
    """Size and times. What replaces a file may have its size and modification time (`cp -p`), but is newer by
    ctime; on Windows that is the time when it was created.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}


def _digest(path: Path) -> str | None:
    """A hash of a small file, or of pieces of a large one: its ends, and some in between. Compressed data
    differ from where a picture was edited to their end.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _WHOLE:
                return hashlib.blake2b(file.read(_WHOLE), digest_size=12).hexdigest()
            digest = hashlib.blake2b(digest_size=12)
            for number in range(_PIECES):
                file.seek((size - _PIECE) * number // (_PIECES - 1))
                digest.update(file.read(_PIECE))
            return digest.hexdigest()
    except OSError:
        return None


def _digest_text(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()
