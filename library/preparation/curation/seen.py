"""What was seen of pictures, kept beside the page until it is written, so that a command that was stopped
goes on where it was.
"""

from __future__ import annotations

import base64
import json
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from library.data.report.lookalikes import Likeness
from library.files import NotWritten
from library.preparation.curation.measures import Measures

FORM = 1  # of the lines; another number when pictures are measured otherwise
_URL = "data:image/webp;base64,"

Stamp = list[int]  # form, side of thumbnails, and the file's size and times


@dataclass(frozen=True)
class Seen:
    """What the pixels of a picture say. thumbnail: a data: URL."""

    likeness: Likeness
    thumbnail: str
    measures: Measures


class SeenFile:
    """A file with a line of JSON for each picture. A line that is cut off, or of a picture that has changed
    since, counts for nothing.

    path: of the file; it is made with the first picture.
    side: of the thumbnails, in pixels.
    """

    def __init__(self, path: Path, side: int) -> None:
        self.path, self.side = path, side
        self._known = _read(path)

    def of(self, picture: Path) -> Seen | None:
        """What was seen of a picture, if it is still as it was."""
        stamp, entry = self._known.get(str(picture.absolute()), (None, None))
        return _seen_in(entry) if entry is not None and stamp == self.stamp(picture) else None

    def stamp(self, picture: Path) -> Stamp:
        """What changes with a picture, to be taken before it is read; empty when there is no such file."""
        try:
            status = picture.stat()
        except OSError:
            return []
        return [FORM, self.side, status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    def add(self, picture: Path, stamp: Stamp, seen: Seen) -> None:
        """Keep what was seen of a picture. Raises NotWritten."""
        line = json.dumps([str(picture.absolute()), stamp, _entry_of(seen)])
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}")  # also after one that is cut off
        except OSError as error:
            raise NotWritten.because(self.path, error, "choose another --page") from None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, tuple[Stamp, dict[str, Any]]]:
    """The stamp and entry of each picture in the file, by the picture's path."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return {}
    known: dict[str, tuple[Stamp, dict[str, Any]]] = {}
    for line in lines:
        try:
            picture, stamp, entry = json.loads(line)
            _seen_in(entry)
            known[str(picture)] = stamp, entry
        except (ValueError, TypeError, KeyError, RecursionError):  # cut off, or not ours
            continue
    return known


def _entry_of(seen: Seen) -> dict[str, Any]:
    return {
        "content": seen.likeness.content.hex(),
        "bits": np.packbits(seen.likeness.bits).tobytes().hex(),
        "colours": base64.b64encode(seen.likeness.colours.astype("<f4").tobytes()).decode("ascii"),
        "thumbnail": seen.thumbnail,
        "measures": [float(value) for value in astuple(seen.measures)],
    }


def _seen_in(entry: dict[str, Any]) -> Seen:
    """Raises ValueError, TypeError or KeyError for what `_entry_of` did not make."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(entry["bits"]), np.uint8)).astype(bool)
    colours = np.frombuffer(base64.b64decode(entry["colours"], validate=True), "<f4").astype(np.float32)
    thumbnail = str(entry["thumbnail"])
    if bits.shape != (256,) or colours.shape != (192,) or not thumbnail.startswith(_URL):
        raise ValueError
    likeness = Likeness(bytes.fromhex(entry["content"]), bits, colours)
    return Seen(likeness, thumbnail, Measures(*(float(value) for value in entry["measures"])))
