"""Metadata files of the fine-tuning method, as tools write them.

JSON is {image key: {"caption": ..., "tags": ...}}; every line of JSONL is
{"image_path": ..., "caption": ..., "tags": ...}. Sizes in them are ignored; they are read from the images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from library.data.scan.folders import name_some
from library.problems import Problems
from library.text_files import read_text

LONGEST_SHOWN = 200  # characters of a key in messages
JSON_FORM = '{"image": {"caption": text, "tags": text}, ...}'
JSONL_FORM = '{"image_path": text, "caption": text, "tags": text}'


class MetadataEntry(NamedTuple):
    """What a metadata file says about one image.

    key: names the image.
    line: from 1, in a JSONL file; None in a JSON file.
    """

    key: str
    content: Any
    line: int | None = None

    def __str__(self) -> str:
        key = self.key if len(self.key) <= LONGEST_SHOWN else f"{self.key[:LONGEST_SHOWN]}..."
        return f'"{key}"' if self.line is None else f'"{key}" (line {self.line})'


class Repetitive(dict[str, Any]):
    """A JSON object in which a key occurs twice. pairs: all of its keys and values."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def read_entries(path: Path, problems: Problems) -> list[MetadataEntry]:
    """The entries of a metadata file in order, including those with equal keys. A file and lines that cannot
    be read are added to `problems` and left out.
    """
    text = problems.attempt(read_text, path)
    if text is None:
        return []
    entries = (
        _lines(path, text, problems) if path.suffix.lower() == ".jsonl" else _object(path, text, problems)
    )
    if entries == []:
        form = JSONL_FORM if path.suffix.lower() == ".jsonl" else JSON_FORM
        problems.add(path, f"must hold {form} with one image or more")
    return entries or []


def _object(path: Path, text: str, problems: Problems) -> list[MetadataEntry] | None:
    try:
        content = _parse(text)
    except (ValueError, RecursionError) as error:
        fix = "name it .jsonl if every line is an entry" if "Extra data" in str(error) else ""
        problems.add(path, f"is not valid JSON: {error}", fix)
        return None
    if not isinstance(content, dict):
        return []
    pairs = content.pairs if isinstance(content, Repetitive) else content.items()
    return [MetadataEntry(key, value) for key, value in pairs]


def _lines(path: Path, text: str, problems: Problems) -> list[MetadataEntry] | None:
    entries, broken, unclear = [], [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            content = _parse(line)
        except (ValueError, RecursionError) as error:
            broken.append(f"line {number} ({error})")
            continue
        if isinstance(content, dict) and isinstance(content.get("image_path"), str):
            entries.append(MetadataEntry(content["image_path"], content, number))
        else:
            unclear.append(f"line {number}")
    if broken:
        problems.add(path, f"{len(broken)} lines are not valid JSON: {name_some(broken)}")
    if unclear:
        problems.add(path, f"{len(unclear)} lines are not {JSONL_FORM}: {name_some(unclear)}")
    return entries or (None if broken or unclear else [])


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_from_pairs)


def _from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    return content if len(content) == len(pairs) else Repetitive(pairs)
