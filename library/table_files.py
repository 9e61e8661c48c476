"""TOML, YAML and JSON files that people write; syntax errors are explained, with their line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from library.problems import UserError
from library.text_files import read_text
from library.wording import shortened

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# How to write a path: in double quotes, a backslash begins a special character.
PATH_FIX = {
    ".toml": "write the path in single quotes, or with / instead of \\",
    ".json": "write the path with / or \\\\ instead of \\",
}

# Pattern in "cause: line", from a parser's message -> what to do about the most likely mistake.
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


# A key of hundreds of parts, a.b.c = 1, over which tomllib takes minutes.
_DEEP_KEY = re.compile(r"""(?<![\w"'.-])(?:[\w"'-]{1,64}[ \t]{0,8}\.[ \t]{0,8}){500}""")
_KINDS = {list: "an array", dict: "an object", str: "a text", type(None): "null", bool: "true or false"}


LONGEST = 1_000_000  # bytes; the parser takes a second for so many


def read_tables(path: Path) -> dict[str, Any]:
    """The keys and tables of a file: JSON when its name ends in .json, else TOML. Raises UserError when it
    cannot be read, is longer than `LONGEST` or holds something else, with the line of a syntax error.
    """
    content = parse_tables(read_text(path, longest=LONGEST), path)
    if not isinstance(content, dict):
        raise UserError.of(path, f"is {kind_of(content)}, not an object", "write {...}")
    return content


def read_document(path: Path) -> Any:
    """What a TOML, YAML or JSON file holds, by the end of its name. Raises UserError as `read_tables`."""
    text = read_text(path, longest=LONGEST)
    if path.suffix.lower() in (".yaml", ".yml"):
        return parse_yaml(text, path, "mend this line")
    return parse_tables(text, path)


def parse_yaml(text: str, where: object, fix: str) -> Any:
    """The content of YAML: of its only document, or all as {"documents": [...]}. It has no aliases: a few of
    them name a text a billion times.

    fix: what to do about a mistake. Raises UserError.
    """
    import yaml

    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise UserError.of(where, "has YAML aliases (*name)", "write out what they stand for")
        documents = list(yaml.safe_load_all(text))
        return documents[0] if len(documents) == 1 else {"documents": documents}
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        cause = str(getattr(error, "problem", None) or error)[:80]
        if mark := getattr(error, "problem_mark", None):
            cause = f"line {mark.line + 1}: {cause}"
        raise UserError.of(where, f"is not YAML ({cause})", fix) from None


def kind_of(value: Any) -> str:
    """The name of a JSON value's type: "an array", ..."""
    return _KINDS.get(type(value), "a number")


def parse_tables(text: str, path: Path) -> Any:
    """The content of a file of this name with this text, as for `read_tables`."""
    text = re.sub("\r\n|\r", "\n", text)
    try:
        is_json = _language(path) == ".json"
        if not is_json and text.count(".") >= 500 and _DEEP_KEY.search(text):
            raise RecursionError
        return json.loads(text, object_pairs_hook=_unique) if is_json else tomllib.loads(text)
    except RecursionError:
        raise UserError.of(path, "has tables in tables without end") from None
    except ValueError as error:
        raise _explain(path, text, str(error)) from None


def _language(path: Path) -> str:
    return ".json" if path.suffix.lower() == ".json" else ".toml"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for equal keys, of which the last would win silently."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'"{shortened(key)}" is there twice in one object')
        found[key] = value
    return found


def _explain(path: Path, text: str, message: str) -> UserError:
    """A parser's message as a UserError, with the line and what to do."""
    if message.startswith("Exceeds the limit"):
        return UserError.of(path, "has a number of thousands of digits", "write a smaller one")
    if _language(path) == ".toml" and text.lstrip()[:1] == "{":
        return UserError.of(path, "is JSON, not TOML", "give it a name that ends in .json")
    suffix, found = _language(path), re.search(r"line (\d+),? column (\d+)", message)
    cause = re.sub(r"\s*\(?:?\s*(at )?line \d+,? column \d+.*", "", message)
    if found is None and not cause.startswith("Cannot "):
        cause = cause.removesuffix(" (at end of document)")
        fix = "keep one of them" if "twice" in cause else "is its end missing?"
        return UserError.of(path, f"is not valid {suffix[1:].upper()}: {cause}", fix)
    lines = text.split("\n")
    number = int(found[1]) if found else len(lines)  # or at its end
    line = lines[number - 1] if number <= len(lines) else ""
    if cause.startswith("Cannot "):  # overwrite a value, declare a table twice
        cause, fix = "something is there twice", "keep one"
    else:
        said = f"{cause}: {line.strip()}"
        fix = next((hint for pattern, hint in _HINTS[suffix] if re.search(pattern, said)), "mend this line")
    shown = shortened(line.strip())
    return UserError.of(f"{path}:{number}", f"is not valid {suffix[1:].upper()}: {cause}", f"{fix}: {shown}")
