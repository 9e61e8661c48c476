"""Paths and names as users write them: what cannot be one is found before anything is opened."""

from __future__ import annotations

import re
from pathlib import Path

LONGEST_PATH = 4096  # bytes, of Linux; Windows and macOS allow less
LONGEST_NAME = 255  # bytes, of nearly all file systems

# Names that Windows reserves for devices, with or without a suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def user_path(text: str) -> Path:
    """The path in a text, with `~` as the home folder. Raises ValueError that says why it cannot be one."""
    if not is_utf8(text):
        raise ValueError(f"expects a path, got {text!r}, which is not UTF-8 text")
    if "\0" in text:
        raise ValueError(f"expects a path, got {text[:80]!r}, which has a zero byte in it")
    if len(text.encode()) > LONGEST_PATH or any(
        len(name.encode()) > LONGEST_NAME for name in re.split(r"[/\\]", text)
    ):
        raise ValueError(f"expects a path, got one that is too long: {text[:40]!r}...")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"expects a path, got {text!r}: there is no user of this name") from None


def is_utf8(text: str) -> bool:
    """False for a text that came from bytes that are not UTF-8, or holds halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_fault(name: str) -> str | None:
    """Why a name cannot be a file name on every system, or None."""
    if not is_utf8(name):
        return "is not UTF-8 text"
    if _FORBIDDEN.search(name) or name in ("", ".", ".."):
        return 'must be a plain file name: no folders, line breaks or any of <>:"/\\|?*'
    if _RESERVED.fullmatch(name):
        return "is a name Windows keeps for a device; choose another"
    if name != name.strip() or name.endswith("."):
        return "must not begin or end with a space or end with a dot"
    if len(name.encode()) > 180:
        return "is too long: at most 180 bytes, so that step numbers and suffixes still fit"
    return None


def matching_paths(pattern: str) -> list[Path]:
    """The paths that a pattern with *, ? or [...] matches, in no order; none for what is no pattern."""
    whole = Path(pattern)
    root = Path(whole.anchor) if whole.is_absolute() else Path()
    try:
        return list(root.glob(str(whole.relative_to(root))))
    except (ValueError, NotImplementedError):
        return []
