"""Text files of users: captions, metadata, dataset and prompt files, in UTF-8 or with a byte order mark."""

from __future__ import annotations

import codecs
from pathlib import Path

from library.problems import UserError

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read_text(path: Path) -> str:
    """The file's text. A byte order mark says UTF-8 or UTF-16; without one it is UTF-8.

    Raises UserError when the file cannot be read, or with the offset of the first byte that is not text.
    """
    try:
        return decode(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise UserError.of(path, "there is no such file") from error
    except OSError as error:
        raise UserError.of(path, f"cannot be read ({error.strerror})") from error


def decode(content: bytes, path: Path) -> str:
    """Text of a file's bytes; `path` is for the message."""
    mark, encoding = next((item for item in _MARKS.items() if content.startswith(item[0])), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        offset = error.start + len(mark)
        name = "UTF-16" if "16" in encoding else "UTF-8"
        cause = f"is not {name} text: byte 0x{content[offset]:02x} at offset {offset}"
        raise UserError.of(path, cause, "save it as UTF-8") from error
    if "\0" in text:
        offset = content.index(b"\0")
        raise UserError.of(path, f"is not text: a zero byte at offset {offset}", "save it as UTF-8")
    return text
