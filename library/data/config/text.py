"""The text of a dataset file -> its tables, and the line of each key; mistakes of writing explained."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.problems import UserError
from library.text_files import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What a backslash in double quotes does, and how a path is written instead.
PATH_FIX = {
    ".toml": "write the path in single quotes, or with / instead of \\",
    ".json": "write the path with / or \\\\ instead of \\",
}

# Found in a parser's complaint, "cause: line", it tells what was most likely meant.
_HINTS = {
    ".toml": (
        (r"^(Unescaped|Invalid hex)", "in double quotes \\ begins a special character; " + PATH_FIX[".toml"]),
        (r"[“”‘’«»„]", "use straight quotes, \" or '"),
        (r"=\s*(True|False)\b", "write true and false in small letters"),
        (r"=\s*(None|null|nil)?\s*$", "a key needs a value; leave it out where it is not set"),
        (r"=\s*[A-Za-z./~]", "text stands in quotes"),
        (r"^Expected '=' .*: *[\w-]+\s*:", "a key and its value stand around an = sign"),
    ),
    ".json": (
        (r"^Invalid \\", "in quotes \\ begins a special character; " + PATH_FIX[".json"]),
        (r"[“”‘’«»„]|[{\[,:]\s*'", 'use straight double quotes, "'),
        (r"(True|False|None)\b", "write true, false and null in small letters"),
        (r": *(//|#|/\*)|[,{\[]\s+(//|#|/\*)", "JSON has no comments"),
        (r": *[\]}]|,\s*[\]}]|comma", "there is no comma after the last entry"),
    ),
}


@dataclass(frozen=True)
class ConfigText:
    """A dataset file. lines: (table, key) -> line, as far as known; a table's own key is ""."""

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
    """A .toml or .json file in tables. Raises UserError, with the line for a mistake of writing."""
    suffix = path.suffix.lower()
    if suffix not in _HINTS:
        raise UserError.of(
            f"--dataset_config {path}", "is neither a .toml nor a .json file", "rename or rewrite it"
        )
    text = re.sub("\r\n|\r", "\n", read_text(path))
    try:
        content = tomllib.loads(text) if suffix == ".toml" else json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise UserError.of(path, "has tables in tables without end", "see docs/datasets.md") from None
    except ValueError as error:
        raise _explain(path, text, str(error)) from None
    if not isinstance(content, dict):
        raise UserError.of(path, f"is {_kind(content)}, not an object", 'write {"datasets": [...]}')
    return ConfigText(path, content, _key_lines(text) if suffix == ".toml" else {})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different; else the last would win in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f'"{twice}" is there twice in one object')
    return found


def _kind(value: Any) -> str:
    return {list: "an array", str: "a text", type(None): "null", bool: "true or false"}.get(
        type(value), "a number"
    )


def _explain(path: Path, text: str, message: str) -> UserError:
    """What a parser complains about, with the line and what to do."""
    suffix, found = path.suffix.lower(), re.search(r"line (\d+),? column (\d+)", message)
    cause = re.sub(r"\s*\(?:?\s*(at )?line \d+,? column \d+.*", "", message)
    if found is None:
        fix = "keep one of them" if "twice" in cause else "is its end missing?"
        return UserError.of(path, f"is not valid {suffix[1:].upper()}: {cause}", fix)
    number = int(found[1])
    lines = text.split("\n")
    line = lines[number - 1] if number <= len(lines) else ""
    if cause.startswith("Cannot "):  # overwrite a value, declare a table twice
        cause, fix = "something is there twice", "keep one"
    else:
        said = f"{cause}: {line.strip()}"
        fix = next((hint for pattern, hint in _HINTS[suffix] if re.search(pattern, said)), "mend this line")
    shown = line.strip() if len(line.strip()) <= 60 else line.strip()[:57] + "..."
    return UserError.of(f"{path}:{number}", f"is not valid {suffix[1:].upper()}: {cause}", f"{fix}: {shown}")


_HEADER = re.compile(r"\s*\[+([^\[\]]*)\]+")
_KEY = re.compile(r"""\s*(["']?)([\w-]+)\1\s*=""")


def _key_lines(text: str) -> dict[tuple[str, str], int]:
    """The line of each table and key of a TOML file. Keys of inline tables have none; texts of several lines
    may hold anything, so a file with one has none at all.
    """
    lines: dict[tuple[str, str], int] = {}
    if '"""' in text or "'''" in text:
        return lines
    table, dataset, subset = "", 0, 0
    for number, line in enumerate(text.split("\n"), 1):
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
