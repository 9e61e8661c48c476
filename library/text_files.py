"""Users' text files: captions, metadata, dataset and prompt files. Encodings are recognized where there is no
doubt, and never guessed.
"""

from __future__ import annotations

import codecs
import difflib
import stat
from contextlib import suppress
from pathlib import Path

from library.paths import is_utf8
from library.problems import UserError

# UTF-32's little-endian mark begins with UTF-16's, so it is tried first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read_text(path: Path, *, longest: int | None = None) -> str:
    """The file's text, with line ends as they are.

    A byte order mark tells UTF-8, UTF-16 or UTF-32. UTF-16 without one is recognized when all characters are
    below U+0100, by every second byte being zero. Everything else is UTF-8.

    longest: how many bytes the file may have; None: any number.
    Raises UserError when the file cannot be read or is longer, or for a byte that is not text, with its
    offset.
    """
    try:
        check_is_file(path)
        with path.open("rb") as file:
            content = file.read(-1 if longest is None else longest + 1)
    except FileNotFoundError as error:
        raise UserError.of(path, "there is no such file", _nearest(path)) from error
    except OSError as error:
        cause = "is a folder, not a file" if _is_folder(path) else f"cannot be read ({error.strerror})"
        raise UserError.of(path, cause, "make it a text file that you may read") from error
    if longest is not None and len(content) > longest:
        raise UserError.of(path, f"is longer than {longest:,} bytes", "shorten it, or move it away")
    return decode(content, path)


def is_text(text: str) -> bool:
    """False for zero bytes and halves of surrogate pairs, which JSON can write."""
    return "\0" not in text and is_utf8(text)


def check_is_file(path: Path) -> None:
    """Raises UserError for a pipe or device, over which one could wait, and OSError if there is nothing."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError.of(path, "is a pipe or device, not a file", "give a file")


def decode(content: bytes, path: Path) -> str:
    """The text of a file's content, as `read_text` reads it. path: for messages."""
    mark, encoding = next((item for item in _MARKS.items() if content.startswith(item[0])), (b"", "utf-8"))
    if not mark and b"\0" in content:
        encoding = _wide_encoding(content)
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        offset = error.start + len(mark)
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        cause = f"is not {name} text: byte 0x{content[offset]:02x} at offset {offset}"
        raise UserError.of(path, cause, "save it as UTF-8") from error
    if "\0" in text:
        offset = len(text[: text.index("\0")].encode(encoding)) + len(mark)
        raise UserError.of(path, f"is not text: a zero byte at offset {offset}", "save it as UTF-8")
    return text.lstrip("\ufeff")  # a second mark, from a program that added one to a file with one


def _wide_encoding(content: bytes) -> str:
    """UTF-16 when it can be nothing else: at least two characters, and exactly every second byte is zero."""
    first, second = content[::2], content[1::2]
    if len(first) == len(second) >= 2:
        zeros = first.count(0), second.count(0)
        if zeros == (0, len(second)):
            return "utf-16-le"
        if zeros == (len(first), 0):
            return "utf-16-be"
    return "utf-8"


def _is_folder(path: Path) -> bool:
    """False also where that cannot be seen: in a folder that may not be read, for a name that is too long."""
    with suppress(OSError):
        return path.is_dir()
    return False


def _nearest(path: Path) -> str:
    """The name that the user may have meant, or else the folder that was searched."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    close = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1, cutoff=0.75)
    return f"did you mean {path.with_name(close[0])}?" if close else f"it was looked for in {folder}"
