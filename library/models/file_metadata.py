"""A file's metadata, for people to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from library.models.sources import find_source
from library.models.weights import read_header
from library.problems import UserError


def expanded_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a .safetensors, or the plain values beside a torch file's tensors, sorted by name.

    JSON objects and lists are parsed. Raises UserError when there is no such file.
    """
    source = find_source(path)
    if source.kind == "diffusers":
        raise UserError.of(path, "is a folder; only files have metadata", "give a file")
    metadata = read_header(source.path).metadata
    return {name: _expanded(metadata[name]) for name in sorted(metadata)}


def _expanded(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
