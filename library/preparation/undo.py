"""Texts that a command replaces are kept in one file beside them, from which they can be put back.

Every line is {"file": path from the file's folder, "text": what stood there}; what is no UTF-8 is written as
{"file": ..., "base64": ...}. A line is on the disk before its file is replaced, so that whatever stops the
command, nothing is lost.
"""

from __future__ import annotations

import base64
import json
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from library.files import NotWritten, whole_file
from library.problems import Problems, UserError
from library.text_files import read_text

FORM = '{"file": path, "text": text}'


class Undo:
    """Keeps old texts of files in a folder and below it.

    path: of the file they are in; None as long as nothing was replaced.
    count: how many are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: TextIO | None = None
        self.path: Path | None = None
        self.count = 0

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file is None or self.path is None:
            return
        with suppress(OSError):  # every line was flushed, or its text was not replaced
            self._file.close()
        if not self.count:
            self.path.unlink(missing_ok=True)

    def replace(self, path: Path, content: bytes) -> bool:
        """Write a text file whole, keeping what stood there. Returns False, and leaves the file alone, if it
        has this content already. Raises NotWritten if the old one cannot be kept or the new one written.
        """
        try:
            old = path.read_bytes() if path.exists() else None
            if old == content:
                return False
            if old is not None:
                self._keep(path, old)
        except OSError as error:
            raise NotWritten.because(path, error) from None
        with whole_file(path, flush=False) as temporary:
            temporary.write_bytes(content)
        return True

    def _keep(self, path: Path, content: bytes) -> None:
        if self._file is None:
            self.path, self._file = _new_file(self._folder)
        name = path.relative_to(self._folder).as_posix()
        self._file.write(json.dumps({"file": name, **_as_text(content)}) + "\n")
        self._file.flush()
        self.count += 1


def restore(path: Path) -> tuple[int, Undo]:
    """Put back the texts that a file keeps, the first of each file. Returns how many were put back, and what
    keeps those that they replace. Raises UserError when it is no such file, with all that is wrong.
    """
    problems = Problems()
    contents = _read(path, problems)
    problems.raise_if_any()
    with Undo(path.parent) as undo:
        done = sum(undo.replace(path.parent / name, content) for name, content in contents.items())
    return done, undo


def _read(path: Path, problems: Problems) -> dict[str, bytes]:
    """The first content of each file."""
    contents: dict[str, bytes] = {}
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, 1):
        try:
            name, content = _entry(json.loads(line)) if line else ("", b"")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            if number < len(lines):  # the last one may be cut off: its file was not replaced
                problems.add(
                    f"{path}:{number}", f"must be {FORM}", "give a file that a command wrote to undo"
                )
            continue
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or ":" in name:
            problems.add(f"{path}:{number}", "names a file outside of this folder", "remove the line")
        elif name:
            contents.setdefault(name, content)
    if not contents and not problems.found:
        raise UserError.of(path, "keeps no texts", "give a file that a command wrote to undo")
    return contents


def _entry(line: Any) -> tuple[str, bytes]:
    name = line["file"]
    if not isinstance(name, str) or not name:
        raise ValueError
    return name, base64.b64decode(line["base64"]) if "base64" in line else line["text"].encode()


def _as_text(content: bytes) -> dict[str, str]:
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _new_file(folder: Path) -> tuple[Path, TextIO]:
    """A new file in the folder, named after the moment."""
    moment, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while True:
        path = folder / f"undo-{moment}{f'-{number}' if number > 1 else ''}.jsonl"
        try:
            return path, path.open("x", encoding="utf-8")
        except FileExistsError:
            number += 1
