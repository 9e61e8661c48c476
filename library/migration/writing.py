"""Write what was found: an option file, a dataset file and a prompt file, never over one that exists."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.files import whole_file
from library.migration.found import Found, Table
from library.problems import UserError


def check_targets(output: Path, found: Found) -> None:
    """Raises UserError if a file that would be written exists already."""
    there = [path for path in (output, *_companions(output, found)) if path.exists()]
    if there:
        raise UserError.of(there[0], "exists already", "choose another name with --output, or move it away")


def write_files(output: Path, found: Found, tables: Mapping[str, Table]) -> list[Path]:
    """Write the files and return their paths, the option file first.

    tables: the options, as `fit` returns them. Raises UserError if a file exists or cannot be written.
    """
    check_targets(output, found)
    dataset, prompts = (
        output.with_name(f"{output.stem}-dataset.toml"),
        output.with_name(f"{output.stem}-prompts.txt"),
    )
    tables = {name: dict(table) for name, table in tables.items()}
    if found.datasets:
        tables.setdefault("data", {})["dataset_config"] = dataset.as_posix()
        _write(dataset, dataset_toml(found.general, found.datasets))
    if found.prompts:
        tables.setdefault("preview", {})["sample_prompts"] = prompts.as_posix()
        _write(prompts, "".join(f"{line}\n" for line in found.prompts))
    _write(output, "\n".join(line for name, table in tables.items() for line in _table(f"[{name}]", table)))
    return [output, *_companions(output, found)]


def dataset_toml(general: Table, datasets: list[Table]) -> str:
    """A dataset file: `[general]`, `[[datasets]]` and their `[[datasets.subsets]]`."""
    lines = _table("[general]", general) if general else []
    for dataset in datasets:
        own = {key: value for key, value in dataset.items() if key != "subsets"}
        lines += _table("[[datasets]]", own)
        for subset in dataset["subsets"]:
            lines += _table("[[datasets.subsets]]", subset)
    return "\n".join(lines)


def command_of(found: Found, output: Path) -> str:
    """The command to run, as a shell reads it."""
    return shlex.join([*found.launch, found.trainer, "--config_file", str(output)])


def _companions(output: Path, found: Found) -> list[Path]:
    names = [("-dataset.toml", found.datasets), ("-prompts.txt", found.prompts)]
    return [output.with_name(output.stem + ending) for ending, content in names if content]


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))


def _table(heading: str, table: Table) -> list[str]:
    return [
        heading,
        *(
            f"{json.dumps(key) if not key.isidentifier() else key} = {_toml(value)}"
            for key, value in table.items()
        ),
        "",
    ]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    # JSON writes texts and numbers as TOML does, but for one control character.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
