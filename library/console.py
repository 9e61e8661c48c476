"""What a command says while it runs: lines, warnings and progress bars, as --console_log_* asks for them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tqdm import tqdm

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
_LOGGER = logging.getLogger("atelier")
_SECONDS_A_LINE = 10.0  # between two lines of a bar that is written in lines


def set_up(level: Level = "INFO", file: Path | None = None, *, is_simple: bool = False) -> None:
    """How the program speaks from here on.

    level: the least that is said; bars are INFO. file: lines and warnings go there, with the time, and not
    to the console; errors go to both. is_simple: bars are lines, for logs and terminals that cannot redraw.
    Raises OSError when the file cannot be written.
    """
    for old in list(_LOGGER.handlers):
        _LOGGER.removeHandler(old)
        old.close()
    _LOGGER.propagate = False
    _LOGGER.setLevel(level)
    _LOGGER.addHandler(_Console(is_simple, logging.CRITICAL if file else logging.DEBUG))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        written = logging.FileHandler(file, encoding="utf-8", errors="replace")
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        written.handleError = lambda record: None  # a full disk: the run is worth more than its log
        _LOGGER.addHandler(written)


def debug(message: str) -> None:
    """What helps to find a fault."""
    _log(logging.DEBUG, message)


def say(message: str) -> None:
    """A line on stdout."""
    _log(logging.INFO, message)


def warn(message: str) -> None:
    """A line on stderr about something the user may not expect."""
    _log(logging.WARNING, f"warning: {message}")


def fail(message: str) -> None:
    """Why the program ends, on stderr. It is always said."""
    _log(logging.CRITICAL, message)


def progress_bar(*words: Any, disable: bool = False, **options: Any) -> tqdm:
    """A tqdm bar; hidden when lines are."""
    from tqdm import tqdm

    console = _console()
    if console.is_simple:
        options |= {
            "file": _Lines(),
            "mininterval": _SECONDS_A_LINE,
            "ascii": True,
            "ncols": 100,
            "leave": True,
        }
    return tqdm(*words, disable=disable or not _LOGGER.isEnabledFor(logging.INFO), **options)


def _log(level: int, message: str) -> None:
    _console()
    _LOGGER.log(level, "%s", message)


def _console() -> _Console:
    if not _LOGGER.handlers:
        set_up()
    console = _LOGGER.handlers[0]
    assert isinstance(console, _Console)
    return console


class _Console(logging.Handler):
    """Lines to stdout, warnings and errors to stderr, as they are: nothing before them."""

    def __init__(self, is_simple: bool, level: int) -> None:
        super().__init__(level)
        self.is_simple = is_simple

    def emit(self, record: logging.LogRecord) -> None:
        is_line = record.levelno <= logging.INFO
        if not is_line:
            sys.stdout.flush()
        print(record.getMessage(), file=sys.stdout if is_line else sys.stderr, flush=True)


class _Lines:
    """A stderr on which a bar's next state is a new line."""

    def write(self, text: str) -> None:
        if state := text.strip("\r\n "):
            sys.stderr.write(state + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
