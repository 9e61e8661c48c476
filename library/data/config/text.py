"""The text of a dataset file -> its tables, and the line of each key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.problems import UserError
from library.table_files import LONGEST, kind_of, parse_tables
from library.text_files import read_text


@dataclass(frozen=True)
class ConfigText:
    """A dataset file.

    content: its tables.
    lines: (table, key) -> line, as far as it is known; the key "" is the table itself.
    """

    path: Path
    content: dict[str, Any]
    lines: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    def place(self, table: str, key: str = "") -> str:
        """Where a key stands, for messages: `data.toml:12: dataset 1, subset 2: flip_aug`."""
        line = self.lines.get((table, key))
        name = self.path.name if line is None else f"{self.path.name}:{line}"
        return ": ".join(filter(None, (name, table, key)))


def read_config_text(path: Path) -> ConfigText:
    """Read a .toml or .json file. Raises UserError, with the line of a syntax error."""
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".json"):
        raise UserError.of(
            f"--dataset_config {path}", "is neither a .toml nor a .json file", "rename or rewrite it"
        )
    text = read_text(path, longest=LONGEST)
    content = parse_tables(text, path)
    if not isinstance(content, dict):
        raise UserError.of(path, f"is {kind_of(content)}, not an object", 'write {"datasets": [...]}')
    return ConfigText(path, content, _key_lines(text) if suffix == ".toml" else {})


_HEADER = re.compile(r"\s*\[+([^\[\]]*)\]+")
_KEY = re.compile(r"""\s*(["']?)([\w-]+)\1\s*=""")


def _key_lines(text: str) -> dict[tuple[str, str], int]:
    """The line of each table and key of a TOML file. Keys of inline tables are not found; in a file with
    multi-line texts, which may hold anything, nothing is.
    """
    lines: dict[tuple[str, str], int] = {}
    if '"""' in text or "'''" in text:
        return lines
    table, dataset, subset = "", 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            name = re.sub(r"[\s\"']", "", header[1])
            if name == "datasets":
                dataset, subset, table = dataset + 1, 0, f"dataset {dataset + 1}"
            elif name == "datasets.subsets":
                subset, table = subset + 1, f"dataset {dataset}, subset {subset + 1}"
            else:
                table = name
            lines.setdefault((table, ""), number)
            lines.setdefault(("", name.partition(".")[0]), number)
        elif key := _KEY.match(line):
            lines.setdefault((table, key[2]), number)
    return lines
