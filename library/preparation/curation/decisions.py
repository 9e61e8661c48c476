"""A file of decisions about pictures, read and held against the dataset that it was made on."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.data.scan.records import Record
from library.problems import Problems
from library.table_files import kind_of, parse_tables
from library.text_files import read_text
from library.wording import shortened

VERSION = 1
MOST_REPEATS = 1000
_KINDS = {"file": str, "digest": str, "drop": bool, "caption": str, "repeat": int}
_OUTCOMES = ("drop", "caption", "repeat")


@dataclass(frozen=True)
class Decision:
    """What is to become of a picture; None leaves the caption or the repeats as they are."""

    drop: bool = False
    caption: str | None = None
    repeat: int | None = None


def read_decisions(path: Path, records: Mapping[str, Record]) -> dict[str, Decision]:
    """The decisions by the pictures' names.

    records: the dataset's pictures by their names on the page.
    Raises UserError with everything that is wrong: keys and values, pictures that are not there any more, and
    those whose file changed since.
    """
    content = parse_tables(read_text(path), path.with_suffix(".toml"))
    problems = Problems()
    for key in content:
        if key not in ("version", "pictures"):
            problems.add(path, f"has an unknown key {shortened(key)!r}", "it has version and [[pictures]]")
    if content.get("version", VERSION) != VERSION:
        problems.add(path, f"has version {content['version']!r}", f"only version {VERSION} is known")
    tables = content.get("pictures", [])
    if not isinstance(tables, list):
        problems.add(path, f"pictures is {kind_of(tables)}", "write [[pictures]] above each")
        tables = []
    found: dict[str, Decision] = {}
    for number, table in enumerate(tables, 1):
        where = f"{path}, picture {number}"
        if not isinstance(table, dict):
            problems.add(where, f"is {kind_of(table)}, not a table", "write [[pictures]] above its keys")
            continue
        if (named := _name(table, where, records, found, problems)) is not None:
            found[named] = Decision(**{key: table[key] for key in _OUTCOMES if key in table})
    problems.raise_if_any()
    return found


def _name(
    table: Mapping[str, Any],
    where: str,
    records: Mapping[str, Record],
    found: Mapping[str, Decision],
    problems: Problems,
) -> str | None:
    """The picture that a sound table is about; otherwise adds what is wrong with it."""
    before = len(problems.found)
    _check_values(table, where, problems)
    if len(problems.found) > before:
        return None
    name = table["file"]
    if name not in records:
        near = difflib.get_close_matches(name, records, n=1)
        problems.add(where, f"{name} is not in the dataset", f"did you mean {near[0]}?" if near else "")
    elif name in found:
        problems.add(where, f"{name} has an earlier decision", "keep one of them")
    elif "digest" in table and _digest(records[name].image) != table["digest"]:
        problems.add(where, f"{name} changed since", "look at it again on a new page")
    return name if len(problems.found) == before else None


def _check_values(table: Mapping[str, Any], where: str, problems: Problems) -> None:
    for key, value in table.items():
        if key not in _KINDS:
            near = difflib.get_close_matches(key, _KINDS, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(_KINDS)}"
            problems.add(where, f"unknown key {shortened(key)!r}", fix)
        elif type(value) is not _KINDS[key]:
            problems.add(where, f"{key} is {kind_of(value)}", _expected(_KINDS[key]))
        elif isinstance(value, int) and key == "repeat" and not 1 <= value <= MOST_REPEATS:
            problems.add(where, f"repeat is {value}", f"it is 1 to {MOST_REPEATS}; drop = true leaves it out")
    if "file" not in table:
        problems.add(where, "has no file", "name the picture: file = ...")


def _expected(kind: type) -> str:
    return {str: "it is a text in quotes", bool: "it is true or false", int: "it is a whole number"}[kind]


def _digest(path: Path) -> str:
    """As `Likeness.content`, in hex."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
