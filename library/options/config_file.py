"""Options in a TOML file. Tables only group: their names mean nothing, as in sd-scripts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.files import whole_file
from library.problems import UserError, warn
from library.secrets import Secret
from library.table_files import read_tables


def read_config_file(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file's path (`.toml` is added where it is missing) and its options with tables flattened.

    Raises UserError when there is no such file, it is not TOML, or an option stands in two tables with two
    values.
    """
    path = path.expanduser()
    if path.suffix != ".toml" and not path.is_file():
        path = path.with_name(path.name + ".toml")
    document = read_tables(path)
    flat: dict[str, Any] = {}
    for key, value in document.items():
        entries = value if isinstance(value, dict) else {key: value}
        for name, entry in entries.items():
            if name in flat and flat[name] != entry:
                raise UserError.of(path.name, f"{name} is set twice, with two values", "keep one")
            flat[name] = entry
    return path, flat


def write_config_file(target: str | None, sections: dict[str, Any]) -> Path:
    """Write all options that differ from their defaults, one table a section, and return the file's path.

    Tokens are left out, with a warning. Raises UserError when no --config_file was given or the file exists.
    """
    if not target:
        raise UserError.of("--output_config", "needs --config_file, the file to write")
    path = Path(target).expanduser()
    path = path if path.suffix == ".toml" else path.with_name(path.name + ".toml")
    if path.exists():
        raise UserError.of(path, "exists already", "choose another name or delete it")
    tables = {name: _changed_options(section) for name, section in sections.items()}
    with whole_file(path) as temporary:
        temporary.write_text(to_toml(tables), encoding="utf-8")
    return path


def _changed_options(section: Any) -> dict[str, Any]:
    changed = {
        field.name: getattr(section, field.name)
        for field in dataclasses.fields(section)
        if getattr(section, field.name) != field.default
    }
    for name in [name for name, value in changed.items() if isinstance(value, Secret)]:
        del changed[name]
        warn(f"--{name} is not written to the file: keep tokens in the environment, or log in")
    return {name: _as_toml(value) for name, value in changed.items()}


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML of tables of texts, numbers, booleans and lists: JSON writes these the same way."""
    lines = []
    for name, table in tables.items():
        if table:
            values = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
            lines += [f"[{name}]", *values, ""]
    return "\n".join(lines)


def _as_toml(value: Any) -> Any:
    """Paths as text with forward slashes, which every system reads."""
    if isinstance(value, Path):
        return value.as_posix()
    return list(map(_as_toml, value)) if isinstance(value, tuple) else value
