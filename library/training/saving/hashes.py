"""Hashes of model files, as other programs know and show them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from library.network.hashes import LEGACY_LENGTH, LEGACY_START


@cache
def file_hashes(path: Path) -> tuple[str, str]:
    """(old, new) hash of a model file: 8 hex digits of the sha256 of 64 KiB at 1 MiB, and the sha256 of the
    whole file.
    """
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            whole.update(chunk)
        file.seek(LEGACY_START)
        part = hashlib.sha256(file.read(LEGACY_LENGTH))
    return part.hexdigest()[:8], whole.hexdigest()
