"""Folders that cannot be written to, and disks without room, for everybody: the superuser too."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def make_read_only(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """From now on nothing can be made, replaced or moved in the folder or below it."""

    def guarded(function: Callable, is_writing: Callable[..., bool]) -> Callable:
        def guard(path: Any, *words: Any, **more: Any) -> Any:
            if _is_below(path, folder) and is_writing(*words, **more):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *words, **more)

        return guard

    for module in (builtins, io):
        patch.setattr(module, "open", guarded(open, _is_for_writing))
    patch.setattr(os, "open", guarded(os.open, lambda flags, *_, **__: bool(flags & _WRITES)))
    for name in ("mkdir", "rename", "replace", "unlink"):
        patch.setattr(os, name, guarded(getattr(os, name), lambda *_, **__: True))


def fill_disk(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """From now on files can be made in the folder and below it, but nothing can be written into them."""
    whole = open

    def full(path: Any, mode: str = "r", *words: Any, **more: Any) -> Any:
        if not (_is_below(path, folder) and _is_for_writing(mode)):
            return whole(path, mode, *words, **more)
        plain = mode.replace("b", "").replace("+", "")
        file = io.BufferedWriter(_FullFile(path, plain, opener=more.get("opener")))
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

    for module in (builtins, io):
        patch.setattr(module, "open", full)


class _FullFile(io.FileIO):
    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fileno(self) -> int:
        raise io.UnsupportedOperation("Pillow would write past `write`")


def _is_below(path: Any, folder: Path) -> bool:
    return not isinstance(path, int) and Path(os.fsdecode(path)).absolute().is_relative_to(folder)


def _is_for_writing(mode: str = "r", *_: Any, **__: Any) -> bool:
    return any(letter in mode for letter in "wxa+")
