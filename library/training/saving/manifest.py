"""The manifest of a state: the size and hash of each of its files, so that damage is found before a resume.

    manifest.json    {"files": {"model.safetensors": {"bytes": 123, "sha256": "..."}, ...}, "sha256": "..."}

A file's hash is the SHA-256 of the SHA-256 of its pieces of 16 MiB: pieces are hashed side by side. The last
hash is of the files' entries, so that damage to the manifest is not taken for damage to a file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from library.problems import Problem, UserError
from library.training.position import LEARNED_FILES, TOLD_FILES, read_json

NAME = "manifest.json"
PIECE = 2**24  # bytes
_BLOCK = 2**20  # bytes read at once
_FIX = "resume from another state, or use it as it is with --skip_state_check"


def write_manifest(folder: Path, known: Mapping[str, dict[str, Any]] = MappingProxyType({})) -> None:
    """Write the manifest of the files that a state folder has now.

    known: the entries of files that were hashed while they were written; the others are read.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    entries = _entries(folder, [name for name in names if name not in known]) | dict(known)
    files = {name: entries[name] for name in names}
    text = json.dumps({"files": files, "sha256": _sum(files)}, indent=2)
    (folder / NAME).write_text(text, encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """Compare a state folder with its manifest, except for the files that only tell of the run. A folder
    without a manifest is one of an older version and passes.

    Raises UserError with every file that is damaged, missing, or not of this state.
    """
    expected = _read(folder)
    if expected is None:
        return
    needed = [name for name in expected if name not in TOLD_FILES]
    there = [name for name in needed if (folder / name).is_file()]
    found = _entries(folder, [name for name in there if _size(folder / name) == expected[name]["bytes"]])
    faults = {name: "is missing" for name in needed if not os.path.lexists(folder / name)}
    faults |= {name: "is no file" for name in needed if name not in there and name not in faults}
    faults |= {
        name: "is damaged: it is not what was saved" for name in there if found.get(name) != expected[name]
    }
    strange = (name for name in LEARNED_FILES if name not in expected and os.path.lexists(folder / name))
    faults |= dict.fromkeys(strange, "is not of this state: its manifest does not name it")
    if faults:
        raise UserError(Problem(str(folder / name), cause, _FIX) for name, cause in faults.items())


def is_as_saved(path: Path) -> bool:
    """Whether a file of a state is what its manifest says; also True if the state has no manifest."""
    try:
        expected = _read(path.parent)
    except UserError:  # passed over with --skip_state_check
        return True
    return expected is None or _entries(path.parent, [path.name]).get(path.name) == expected.get(path.name)


def _read(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The manifest's entries by file name; None without a manifest. Raises UserError when it is damaged."""
    path = folder / NAME
    if not os.path.lexists(path):
        return None
    found = read_json(path)
    files = found.get("files") if isinstance(found, dict) else None
    if (
        not isinstance(files, dict)
        or not all(map(_is_entry, files.values()))
        or found.get("sha256") != _sum(files)
    ):
        raise UserError.of(path, "is damaged", _FIX)
    return files


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"bytes", "sha256"}
        and type(value["bytes"]) is int
        and isinstance(value["sha256"], str)
    )


def _sum(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size


def _entries(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """The manifest's entries of these files, read side by side; without those that cannot be read."""
    sizes = {name: _size(folder / name) for name in names if (folder / name).is_file()}
    pieces = [(name, start) for name, size in sizes.items() for start in range(0, max(size, 1), PIECE)]
    sums = {name: hashlib.sha256() for name in sizes}
    unread = set()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes = pool.map(lambda piece: _hash_piece(folder / piece[0], piece[1]), pieces)
        for (name, _), digest in zip(pieces, hashes, strict=True):
            sums[name].update(digest or b"")
            if digest is None:
                unread.add(name)
    return {
        name: {"bytes": size, "sha256": sums[name].hexdigest()}
        for name, size in sizes.items()
        if name not in unread
    }


def _hash_piece(path: Path, start: int) -> bytes | None:
    """The SHA-256 of a file's piece; None when the disk cannot read it."""
    digest = hashlib.sha256()
    try:
        for block in _blocks(path, start):
            digest.update(block)
    except OSError:
        return None
    return digest.digest()


def _blocks(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        left = PIECE
        while left and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
