"""Which program a file or a text is of, by its content, and what it asks for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from library.migration.ai_toolkit import is_ai_toolkit, read_ai_toolkit
from library.migration.commands import read_command, read_option_file
from library.migration.containers import is_container_file, script_of_containers, script_of_dockerfile
from library.migration.found import Found
from library.migration.kohya_gui import is_kohya_gui, read_kohya_gui
from library.migration.notebooks import cells_of, is_notebook, script_of
from library.migration.onetrainer import is_onetrainer, read_onetrainer
from library.problems import UserError
from library.table_files import parse_yaml
from library.text_files import read_text

LONGEST = 1_000_000  # bytes; such files have a few thousand
_DEEPEST = 50  # tables in tables


def read_source(source: str) -> tuple[Found, Path | None]:
    """What a file or the text of a command asks for, and the file's path.

    Raises UserError if it cannot be read, is of no program that is known, or asks for what is never there.
    """
    path = Path(source).expanduser()
    try:
        is_file = path.is_file()
        is_other = not is_file and path.exists()
    except (OSError, ValueError):  # too long for a name: a command
        is_file = is_other = False
    if is_other:
        raise UserError.of(path, "is no file", "give a file or a command in quotation marks")
    if not is_file and " " not in source.strip():
        read_text(path)  # says that there is none, and what is nearest
    if len(source) > LONGEST:
        raise UserError.of("command", f"is longer than {LONGEST:,} characters", "shorten it")
    text = read_text(path, longest=LONGEST) if is_file else source
    where = path.name if is_file else "command"
    try:
        found = read_content(text, where, path.parent)
    except UserError as error:
        raise error if not is_file else _in_file(error, path.name) from None
    return found, path if is_file else None


def read_content(text: str, where: str, folder: Path) -> Found:
    """What a text asks for. where: for messages; folder: where files are looked for that it names."""
    script, document = _script(text, where), None
    if script is None:
        document = _document(text, where)
    found = _of_document(document, folder) if document is not None else read_command(script or text, folder)
    if found is None:
        raise UserError.of(
            where, "is of no program that is known here", "see docs/migrating.md for those that are"
        )
    return found


def _script(text: str, where: str) -> str | None:
    """The commands of a notebook or of a container's file as a script; None if the text is neither."""
    if text.lstrip().startswith("{"):
        cells = cells_of(_checked(_json(text, where), where)) if '"nbformat"' in text else None
        return None if cells is None else script_of(cells)
    if is_container_file(text):
        return script_of_containers(_checked(parse_yaml(text, where, "save it anew in its program"), where))
    return script_of_dockerfile(text) or (script_of([text]) if is_notebook(text) else None)


def _of_document(document: dict[str, Any], folder: Path) -> Found | None:
    if is_ai_toolkit(document):
        return read_ai_toolkit(document)
    if is_kohya_gui(document):
        return read_kohya_gui(document)
    if is_onetrainer(document):
        return read_onetrainer(document, folder)
    return read_option_file(document)


def _document(text: str, where: str) -> dict[str, Any] | None:
    """The text as JSON, TOML or YAML; None if it is none of them: a script."""
    stripped = text.lstrip()
    if stripped.startswith("{"):
        return _checked(_json(text, where), where)
    toml = _toml(text)
    if toml is not None:
        return _checked(toml, where)
    if any(line.startswith(("config:", "job:")) for line in stripped.splitlines()):
        return _checked(parse_yaml(text, where, "save it anew in its program"), where)
    return None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError.of(where, f"is not JSON ({str(error)[:80]})", "save it anew in its program") from None


def _toml(text: str) -> dict[str, Any] | None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text.replace("\r\n", "\n")) or None
    except (ValueError, RecursionError):
        return None


def _checked(document: Any, where: str) -> dict[str, Any]:
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            for inner in (
                value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            )
        ]
    if not isinstance(document, dict) or level:
        raise UserError.of(where, "is no table of settings", "give the file that the program saved")
    return {str(key): value for key, value in document.items()}


def _in_file(error: UserError, name: str) -> UserError:
    from library.problems import Problem

    return UserError(
        [p if name in p.where else Problem(f"{name}: {p.where}", p.cause, p.fix) for p in error.problems]
    )
