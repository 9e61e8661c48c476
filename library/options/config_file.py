"""Options in a TOML file. Tables only group options: their names mean nothing, as in sd-scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from library.files import whole_file
from library.options.fields import changed_values
from library.options.foreign_config import refuse_foreign
from library.options.multipliers import Multiplier
from library.options.unset import asks_nothing, is_unset
from library.paths import user_path
from library.problems import Problems, UserError, warn
from library.secrets import Secret
from library.table_files import read_tables

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def read_config_file(target: str) -> tuple[Path, dict[str, object]]:
    """The file's path (with `.toml` added where it is missing) and its options, out of their tables.

    Raises UserError if there is no such file, it is not TOML, or two tables give an option two values.
    """
    path = _path_of(target)
    if path.suffix != ".toml" and not path.is_file():
        path = path.with_name(path.name + ".toml")
    document = read_tables(path)
    refuse_foreign(path, document)
    flat: dict[str, object] = {}
    problems = Problems()
    for table, key, value in _entries(document):
        name = key.removeprefix("--").replace("-", "_")
        if isinstance(value, dict) and not asks_nothing(value):
            cause = "is a table within a table, which is not read"
            problems.add(f"{path.name}: {table}.{key}", cause, f"write [{key}]")
        elif is_unset(flat.get(name, "")):
            flat[name] = value
        elif value != flat[name] and not is_unset(value):
            problems.add(path.name, f"{name} is set twice, with two values", "keep one")
    problems.raise_if_any()
    return path, flat


def _entries(document: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    """(table, key, value) of each option in a file; the table is "" for those above all tables."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from ((key, name, entry) for name, entry in value.items())
        else:
            yield "", key, value


def write_config_file(target: str | None, sections: Mapping[str, DataclassInstance]) -> Path:
    """Write the options that differ from their defaults, one table a section, and return the file's path.

    Tokens are left out, with a warning. Raises UserError if no --config_file was given or the file exists.
    """
    if not target:
        raise UserError.of("--output_config", "needs --config_file, the file to write")
    path = _path_of(target)
    path = path if path.suffix.lower() == ".toml" else path.with_name(path.name + ".toml")
    if path.exists():
        raise UserError.of(path, "exists already", "choose another name or delete it")
    tables = {name: _written(changed_values(section)) for name, section in sections.items()}
    with whole_file(path) as temporary:
        temporary.write_text(to_toml(tables), encoding="utf-8")
    return path


def _path_of(target: str) -> Path:
    try:
        path = user_path(target)
    except ValueError as error:
        raise UserError.of("--config_file", str(error)) from None
    if not path.name:
        raise UserError.of("--config_file", f"expects a file, got {target!r}")
    return path


def _written(values: Mapping[str, object]) -> dict[str, object]:
    for name, value in values.items():
        if isinstance(value, Secret):
            warn(f"--{name} is not written to the file: keep tokens in the environment, or log in")
    return {name: toml_value(value) for name, value in values.items() if not isinstance(value, Secret)}


def to_toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """TOML of tables that hold texts, numbers, booleans and lists: JSON writes these the same way."""
    lines = []
    for name, table in tables.items():
        if table:
            values = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
            lines += [f"[{name}]", *values, ""]
    return "\n".join(lines)


def toml_value(value: object) -> object:
    """An option's value for `to_toml`: paths as text with forward slashes, which every system reads;
    strengths as options write them.
    """
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Multiplier):
        return str(value) if value.blocks else value.strength
    return list(map(toml_value, value)) if isinstance(value, tuple) else value
