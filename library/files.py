"""Files appear whole or not at all: written beside their place under a temporary name, flushed, renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder; it replaces `path` when the block ends well, and is removed
    otherwise.

    Until the rename the old file is untouched, so a crash or a full disk never leaves half a file under
    `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: the block fills a temporary folder, which then takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        _replace_folder(temporary, path)
        _flush_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Whether a name is one of ours that a killed process may have left behind."""
    return path.name.startswith(".") and path.name.endswith(".part")


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex[:8]}.part")


def _replace_folder(temporary: Path, path: Path) -> None:
    # A folder cannot be renamed over a full one: the old one steps aside first and goes last.
    if not path.exists():
        temporary.replace(path)
        return
    old = _temporary_name(path)
    path.replace(old)
    temporary.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder for syncing, and its rename needs none
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
