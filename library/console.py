"""What a command prints while it runs: lines, warnings and progress bars, as --console_log_* asks."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
_LOGGER = logging.getLogger("atelier")
# Names and files may hold control characters, which would move the cursor or colour the screen; halves of
# characters come from names that are not UTF-8; marks of direction turn what follows around.
_CONTROLS = (
    *range(32),
    *range(127, 160),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    *range(0xD800, 0xE000),
)
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in _CONTROLS if chr(code) not in "\n\t"}
_SECONDS_IN_SILENCE = 1.0  # before `activity` speaks
_SECONDS_A_LINE = 10.0  # between two lines of a progress bar that is printed as lines


def set_up(level: Level = "INFO", file: Path | None = None, *, is_simple: bool = False) -> None:
    """Set how the program prints from here on. Raises OSError if the file cannot be written.

    level: the lowest level that is printed; progress bars are INFO.
    file: where lines and warnings go, with the time, instead of to the console; errors go to both.
    is_simple: progress is printed as lines, for logs and terminals that cannot redraw.
    """
    for old in list(_LOGGER.handlers):
        _LOGGER.removeHandler(old)
        old.close()
    _LOGGER.propagate = False
    _LOGGER.setLevel(level)
    _LOGGER.addHandler(_Console(is_simple, logging.CRITICAL if file else logging.DEBUG))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        log = _LogFile(file, encoding="utf-8", errors="replace")
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        _LOGGER.addHandler(log)


@contextmanager
def lasting() -> Iterator[None]:
    """Context manager: inside, stdout and stderr do not raise when nobody reads them any more or the disk is
    full, for the work is worth more than its messages. Ctrl-C ends `| tee` too, before a state is saved.
    Libraries' warnings stand above progress bars, as ours do.
    """
    kept, show_warning = (sys.stdout, sys.stderr), warnings.showwarning
    warnings.showwarning = _show_warning
    # A stream that was closed before the start is None. The file that is opened next would take its place,
    # and get what libraries print.
    sys.stdout, sys.stderr = (_Lasting(stream or _nowhere()) for stream in kept)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = kept
        warnings.showwarning = show_warning


def is_debugging() -> bool:
    """Whether lines for finding bugs are printed, also while --debug was not read yet."""
    return _LOGGER.isEnabledFor(logging.DEBUG) or "--debug" in sys.argv


def debug(message: str) -> None:
    """A line for finding bugs, on stdout."""
    _log(logging.DEBUG, message)


def say(message: str) -> None:
    """A line on stdout."""
    _log(logging.INFO, message)


def warn(message: str) -> None:
    """A line on stderr about something the user may not expect."""
    _log(logging.WARNING, f"warning: {message}")


def fail(message: str) -> None:
    """A line on stderr about why the program ends; printed at every level."""
    _log(logging.CRITICAL, message)


def is_first_process() -> bool:
    """Whether this is the first of the processes on this machine, the one that prints."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def activity(what: str) -> Iterator[None]:
    """Context manager for work without a progress bar: if it takes longer than a second, a line on stderr
    says what is being done. Of several processes only the first says it.
    """
    timer = threading.Timer(_SECONDS_IN_SILENCE, _show_activity, [what])
    timer.daemon = True
    if is_first_process():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def progress_bar(*words: Any, disable: bool = False, **options: Any) -> tqdm:
    """A tqdm bar with tqdm's own arguments; hidden when lines are. Where nothing can be redrawn, as in a log,
    its states are lines.
    """
    from tqdm import tqdm

    if _console().is_simple or not sys.stderr.isatty():
        options |= {
            "file": _Lines(),
            "mininterval": _SECONDS_A_LINE,
            "ascii": True,
            "ncols": 100,
            "leave": True,
            "position": 0,  # else a bar inside another moves the cursor
        }
    return tqdm(*words, disable=disable or not _LOGGER.isEnabledFor(logging.INFO), **options)


def _show_activity(what: str) -> None:
    if _LOGGER.isEnabledFor(logging.INFO):  # progress, as bars are
        with _above_bars(sys.stderr):
            print(f"{what} ...".translate(_ESCAPES), file=sys.stderr, flush=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    stream = file or sys.stderr
    with _above_bars(stream):
        stream.write(warnings.formatwarning(message, category, filename, lineno, line))


def _log(level: int, message: str) -> None:
    _console()
    _LOGGER.log(level, "%s", message.translate(_ESCAPES))


def _console() -> _Console:
    if not _LOGGER.handlers:
        set_up()
    console = _LOGGER.handlers[0]
    assert isinstance(console, _Console)
    return console


class _Console(logging.Handler):
    """Lines to stdout, warnings and errors to stderr, with nothing before them."""

    def __init__(self, is_simple: bool, level: int) -> None:
        super().__init__(level)
        self.is_simple = is_simple

    def emit(self, record: logging.LogRecord) -> None:
        is_line = record.levelno <= logging.INFO
        if not is_line:
            sys.stdout.flush()
        stream = sys.stdout if is_line else sys.stderr
        with _above_bars(stream):
            print(record.getMessage(), file=stream, flush=True)


def _above_bars(stream: TextIO) -> AbstractContextManager[object]:
    """Context manager: inside, progress bars give way to lines; they are drawn again below them."""
    if "tqdm" not in sys.modules:
        return nullcontext()
    from tqdm import tqdm

    return tqdm.external_write_mode(stream)


class _LogFile(logging.FileHandler):
    """A log that a full disk does not stop: the run is worth more than its log. What it cannot take goes to
    the console from there on.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        console = _console()
        _LOGGER.removeHandler(self)
        if self.stream is not None:
            _drain(self.stream)
        self.close()
        if record.levelno < console.level:  # else it is there already
            console.setLevel(logging.DEBUG)
            console.handle(record)
        console.setLevel(logging.DEBUG)
        reason = getattr(error, "strerror", None) or str(error)
        warn(f"{self.baseFilename}: cannot be written to ({reason}); lines go to the console from here on")


class _Lines:
    """A stderr for tqdm on which each state of a bar is a line of its own."""

    def write(self, text: str) -> None:
        if state := text.strip("\r\n "):
            sys.stderr.write(state + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class _Lasting:
    """A stream that writes to nowhere once it cannot be written to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console or pipe that cannot show every file name

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self) -> None:
        _drain(self._stream)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _drain(stream: TextIO) -> None:
    """From here on a stream that cannot be written to writes to nowhere. Python writes what is still buffered
    when it is closed, which must not fail either.
    """
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
