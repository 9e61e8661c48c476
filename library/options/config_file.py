"""Options in a TOML file. Tables only group options: their names mean nothing, as in sd-scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from library.files import whole_file
from library.options.fields import changed_values
from library.problems import UserError, warn
from library.secrets import Secret
from library.table_files import read_tables

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def read_config_file(path: Path) -> tuple[Path, dict[str, object]]:
    """The file's path (with `.toml` added where it is missing) and its options, out of their tables.

    Raises UserError if there is no such file, it is not TOML, or two tables give an option two values.
    """
    path = path.expanduser()
    if path.suffix != ".toml" and not path.is_file():
        path = path.with_name(path.name + ".toml")
    document = read_tables(path)
    flat: dict[str, object] = {}
    for key, value in document.items():
        entries = value if isinstance(value, dict) else {key: value}
        for name, entry in entries.items():
            if name in flat and flat[name] != entry:
                raise UserError.of(path.name, f"{name} is set twice, with two values", "keep one")
            flat[name] = entry
    return path, flat


def write_config_file(target: str | None, sections: Mapping[str, DataclassInstance]) -> Path:
    """Write the options that differ from their defaults, one table a section, and return the file's path.

    Tokens are left out, with a warning. Raises UserError if no --config_file was given or the file exists.
    """
    if not target:
        raise UserError.of("--output_config", "needs --config_file, the file to write")
    path = Path(target).expanduser()
    path = path if path.suffix == ".toml" else path.with_name(path.name + ".toml")
    if path.exists():
        raise UserError.of(path, "exists already", "choose another name or delete it")
    tables = {name: _written(changed_values(section)) for name, section in sections.items()}
    with whole_file(path) as temporary:
        temporary.write_text(to_toml(tables), encoding="utf-8")
    return path


def _written(values: Mapping[str, object]) -> dict[str, object]:
    for name, value in values.items():
        if isinstance(value, Secret):
            warn(f"--{name} is not written to the file: keep tokens in the environment, or log in")
    return {name: _as_toml(value) for name, value in values.items() if not isinstance(value, Secret)}


def to_toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """TOML of tables that hold texts, numbers, booleans and lists: JSON writes these the same way."""
    lines = []
    for name, table in tables.items():
        if table:
            values = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
            lines += [f"[{name}]", *values, ""]
    return "\n".join(lines)


def _as_toml(value: object) -> object:
    """Paths as text with forward slashes, which every system reads."""
    if isinstance(value, Path):
        return value.as_posix()
    return list(map(_as_toml, value)) if isinstance(value, tuple) else value
