"""Metadata files as commands of preparation read, change and write them. Whatever stands in an entry beside
caption and tags stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from library.data.scan.folders import name_some, stem_of
from library.data.scan.metadata_file import Repetitive, read_entries
from library.files import prepare_folder
from library.preparation.undo import Undo
from library.problems import Problems, UserError
from library.wording import counted

Metadata = dict[str, dict[str, Any]]


def read_metadata(path: Path, *, may_be_empty: bool = False) -> Metadata:
    """The entries of a .json or .jsonl file by key, in order. Raises UserError with all that is wrong.

    may_be_empty: whether a file without entries is one.
    """
    problems, odd, found = Problems(), list[str](), Metadata()
    entries = [] if may_be_empty and _is_empty(path) else read_entries(path, problems)
    for entry in entries:
        if entry.key in found:
            odd.append(f"{entry} is there twice")
        elif isinstance(entry.content, Repetitive) or not _is_entry(entry.content):
            odd.append(str(entry))
        else:
            found[entry.key] = _without_key(entry.content) if entry.line is not None else entry.content
    if odd:
        cause = f'{counted(len(odd), "entry is", "entries are")} not {{"caption": text, "tags": text}}'
        problems.add(path, f"{cause}, each once: {name_some(odd)}", "mend or remove")
    problems.raise_if_any()
    return found


def key_of(picture: Path, *, full_path: bool) -> str:
    """What a picture's entry is called: its path, or its name without suffix."""
    return str(picture) if full_path else stem_of(picture.name)


def check_target(path: Path) -> None:
    """Raises UserError, before the work, if a metadata file cannot be written there."""
    if path.is_dir():
        raise UserError.of(path, "is a folder", "give the metadata file to write, such as meta.json")
    prepare_folder(path.parent, "choose another place for the metadata", make=False)


def write_metadata(path: Path, metadata: Metadata, undo: Undo) -> None:
    """Write the entries whole: an object in a .json file, a line each in a .jsonl file."""
    if path.suffix.lower() == ".jsonl":
        lines = [
            json.dumps({"image_path": key, **entry}, ensure_ascii=False) for key, entry in metadata.items()
        ]
        text = "".join(f"{line}\n" for line in lines)
    else:
        text = json.dumps(metadata, indent=2)
    undo.replace(path, text.encode("utf-8", "backslashreplace"))


def replace_metadata(path: Path, metadata: Metadata) -> str:
    """Write the entries whole, and keep what stood there. Returns where that is, for the end of a line."""
    with Undo(path.parent) as undo:
        write_metadata(path, metadata, undo)
    return f"; what it held before is in {undo.path}" if undo.path else ""


def _is_empty(path: Path) -> bool:
    """Whether a file holds {} or nothing."""
    return path.is_file() and path.stat().st_size < 16 and path.read_bytes().strip() in (b"", b"{}")


def _is_entry(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(content.get(key), str | None) for key in ("caption", "tags")
    )


def _without_key(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "image_path"}
