"""Locks that the system holds for a process and frees when it ends, however that happens."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from library.byte_locks import HELD, is_still, lock, open_lock
from library.problems import UserError


@contextmanager
def output_lock(folder: Path, name: str) -> Iterator[None]:
    """Context manager: inside, no other process writes results of that name into the folder.

    The lock is on `.<name>.lock` there, so that it also holds between machines that share the folder. The
    file is removed at the end; one that a killed process left behind is not locked any more. Without a right
    to write it, or on a drive without locks, nothing is locked.

    name: of the results, without suffix.
    Raises UserError, with the process that has it, when the lock is taken.
    """
    path = folder / f".{name}.lock"
    file = _locked(path, folder / name)
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):  # on Windows an open file stays
                path.unlink()
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                if sys.platform == "win32":
                    path.unlink()


def _locked(path: Path, subject: Path) -> IO[bytes] | None:
    """The open file, locked; None where that is not possible."""
    while True:
        try:
            file = os.fdopen(open_lock(path), "r+b", buffering=0)
        except OSError:
            return None
        try:
            lock(file.fileno())
        except OSError as error:
            owner = _owner(file)
            file.close()
            if error.errno in HELD:
                fix = "wait until it has ended, or choose another --output_name"
                raise UserError.of(subject, f"{owner} is writing files of this name", fix) from None
            return None
        if is_still(path, file.fileno()):
            break
        file.close()  # the process before removed it between our opening and locking
    with suppress(OSError):  # no room: the lock holds all the same
        file.truncate(0)
        file.write(f"{os.getpid()} {_machine()}\n".encode())
    return file


def _owner(file: IO[bytes]) -> str:
    """Who has the lock, in words."""
    with suppress(OSError):
        file.seek(0)
        words = file.read(300).decode(errors="replace").split()
        if len(words) == 2 and words[0].isdecimal() and words[1].isprintable():
            place = "" if words[1] == _machine() else f" on {words[1]}"
            return f"another run (process {words[0]}{place})"
    return "another run"


def _machine() -> str:
    return "".join((platform.node() or "unknown").split())
