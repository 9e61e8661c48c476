"""A run's options as others may see them: no tokens, and of folders and files only the names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from library.options.fields import changed_values, sections_in, values_of
from library.secrets import Secret, hide_tokens

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Plain = bool | int | float | str
Listed = Plain | list["Listed"]

# The folders that a path begins with, as any system writes them; not the address of a web page.
_FOLDERS = re.compile(r"(?<![\w/\\:])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"]+[/\\])+")


def public_options(run: DataclassInstance) -> dict[str, Plain]:
    """Every option of a Run that is set, by name. Lists become texts with spaces, paths their last name."""
    return {
        name: _shown(value)
        for section in sections_in(run).values()
        for name, value in values_of(section).items()
        if value is not None and value != () and not isinstance(value, Secret)
    }


def changed_options(run: DataclassInstance) -> dict[str, dict[str, Listed]]:
    """The options that differ from their defaults, by section; values as in `public_options`, but a list is a
    list.
    """
    return {
        name: {
            option: _listed(value)
            for option, value in changed_values(section).items()
            if not isinstance(value, Secret)
        }
        for name, section in sections_in(run).items()
    }


def places_of(run: DataclassInstance, *more: Path) -> list[Path]:
    """The paths that a Run's options name, and more of them, the longest first; for `public_text`."""
    found = set(more)
    for section in sections_in(run).values():
        for value in values_of(section).values():
            values = value if isinstance(value, tuple) else (value,)
            found |= {Path(one) for one in values if isinstance(one, Path) or _is_path(one)}
    found |= {path.absolute() for path in found} | {path.resolve() for path in found}
    return sorted((path for path in found if len(path.parts) > 1), key=lambda path: -len(str(path)))


def public_text(text: str, places: Sequence[Path]) -> str:
    """A message as others may see it: without tokens and without the folders of paths.

    places: known paths, as of `places_of`. Of others only those without spaces can be told from the text.
    """
    for place in places:
        text = text.replace(str(place), place.name)
    return _FOLDERS.sub("", hide_tokens(text))


def _listed(value: object) -> Listed:
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else _shown(value)


def _shown(value: object) -> Plain:
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Path):
        return value.name
    if isinstance(value, (tuple, list)):
        return " ".join(str(_shown(item)) for item in value)
    name, equals, path = hide_tokens(str(value)).rpartition("=")
    return f"{name}{equals}{PureWindowsPath(path).name if _is_path(path) else path}"


def _is_path(text: object) -> bool:
    """Whether a text names a place on this machine, as any system writes it; a hub id does not."""
    if not isinstance(text, str):
        return False
    try:
        begins = text.startswith(("/", "~", "\\", ".")) or bool(PureWindowsPath(text).drive)
        return begins or ("/" in text or "\\" in text) and Path(text).exists()
    except (OSError, ValueError):  # a long text is no path
        return False
