"""A tagger's table of tags, in the layouts that taggers come with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from library.downloads import not_the_file
from library.problems import UserError
from library.text_files import read_text

LONGEST_TABLE = 50_000_000  # bytes; tables of 70,000 tags have some five million

# The numbers of Danbooru's categories, and 9, which WD14's table has for ratings.
_NUMBERS = {
    "0": "general",
    "1": "artist",
    "3": "copyright",
    "4": "character",
    "5": "meta",
    "9": "rating",
}
Layout = Literal["csv", "mapping", "list", "metadata"]


@dataclass(frozen=True)
class Label:
    """A tag.

    name: as in the table.
    category: general, character, rating, ...
    """

    name: str
    category: str


@dataclass(frozen=True)
class Table:
    """The tags in the order of the model's outputs.

    layout: of the file, which also tells the model's kind.
    """

    path: Path
    labels: tuple[Label, ...]
    layout: Layout


def read_table(path: Path) -> Table:
    """A table of tags by its file name. Raises UserError when it is none."""
    text = read_text(path, longest=LONGEST_TABLE)
    layout = layout_of(path)
    try:
        labels = _READERS[layout](text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        other = UserError.of(path, f"is no table of tags ({error})", f"it must hold {_FORMS[layout]}")
        raise not_the_file(path) or other from None
    if not labels:
        raise UserError.of(path, "holds no tags", f"it must hold {_FORMS[layout]}")
    return Table(path, tuple(labels), layout)


def layout_of(path: Path) -> Layout:
    if path.suffix.lower() == ".csv":
        return "csv"
    if path.suffix.lower() == ".txt":
        return "list"
    return "metadata" if "metadata" in path.name else "mapping"


def _read_csv(text: str) -> list[Label]:
    rows = csv.DictReader(io.StringIO(text))
    names = rows.fieldnames or []
    if "name" not in names or "category" not in names:
        raise ValueError(f"its first line has no name and category: {','.join(names)[:60]}")
    found = []
    for row in rows:
        if row["name"] is None or row["category"] is None:
            raise ValueError(f"line {rows.line_num} has no name or category")
        found.append(Label(row["name"], _category(row["category"])))
    return found


def _read_mapping(text: str) -> list[Label]:
    content = json.loads(text)
    by_index = {int(index): value for index, value in content.items()}
    return [Label(str(value["tag"]), _category(value["category"])) for value in _in_order(by_index)]


def _read_list(text: str) -> list[Label]:
    names = [line.strip() for line in text.splitlines() if line.strip()]
    return [Label(name, "rating" if name.startswith("rating:") else "general") for name in names]


def _read_metadata(text: str) -> list[Label]:
    """camie's: the index of each tag, and the category of each."""
    content = json.loads(text)
    for key in ("dataset_info", "tag_mapping"):
        content = content.get(key, content)
    names = _in_order({int(index): str(name) for index, name in content["idx_to_tag"].items()})
    categories = content.get("tag_to_category", {})
    return [Label(name, _category(categories.get(name, "general"))) for name in names]


def _in_order(by_index: dict[int, Any]) -> list[Any]:
    if sorted(by_index) != list(range(len(by_index))):
        raise ValueError("its numbers do not run from 0 without gaps")
    return [by_index[index] for index in range(len(by_index))]


def _category(value: object) -> str:
    return _NUMBERS.get(str(value).strip(), str(value).strip().lower())


_READERS: dict[Layout, Callable[[str], list[Label]]] = {
    "csv": _read_csv,
    "mapping": _read_mapping,
    "list": _read_list,
    "metadata": _read_metadata,
}
_FORMS: dict[Layout, str] = {
    "csv": "lines of tag_id,name,category,count",
    "mapping": '{"0": {"tag": text, "category": text}, ...}',
    "list": "a tag a line",
    "metadata": '{"idx_to_tag": {"0": text, ...}, "tag_to_category": {...}}',
}
