"""A run's options as others may see them: no tokens, and of folders and files only the names."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PureWindowsPath
from typing import Any

from library.options.fields import specs_of
from library.secrets import Secret, hide_tokens


def public_options(run: Any) -> dict[str, bool | int | float | str]:
    """Every option of a Run that is set, by name. Lists are texts with spaces, paths the last of their
    names.
    """
    found: dict[str, Any] = {}
    for section in (getattr(run, field.name) for field in dataclasses.fields(run)):
        found |= {spec.name: getattr(section, spec.name) for spec in specs_of(type(section))}
    return {
        name: _shown(value)
        for name, value in found.items()
        if value is not None and value != () and not isinstance(value, Secret)
    }


def changed_options(run: Any) -> dict[str, dict[str, Any]]:
    """Those that differ from their defaults, a table for each section; values as in `public_options`, but
    lists are lists.
    """
    tables = {}
    for field in dataclasses.fields(run):
        section = getattr(run, field.name)
        values = {spec.name: getattr(section, spec.name) for spec in specs_of(type(section))}
        changed = {spec.name for spec in specs_of(type(section)) if values[spec.name] != spec.default}
        tables[field.name] = {
            name: _listed(value)
            for name, value in values.items()
            if name in changed and not isinstance(value, Secret)
        }
    return tables


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else _shown(value)


def _shown(value: Any) -> bool | int | float | str:
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Path):
        return value.name
    if isinstance(value, (tuple, list)):
        return " ".join(str(_shown(item)) for item in value)
    name, equals, path = hide_tokens(str(value)).rpartition("=")
    return f"{name}{equals}{PureWindowsPath(path).name if _is_path(path) else path}"


def _is_path(text: str) -> bool:
    """Whether a text names a place on this machine, in any system's way; a hub id does not."""
    try:
        begins = text.startswith(("/", "~", "\\", ".")) or bool(PureWindowsPath(text).drive)
        return begins or ("/" in text or "\\" in text) and Path(text).exists()
    except (OSError, ValueError):  # a long text is no path
        return False
