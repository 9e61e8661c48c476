"""What is wrong with a user's inputs, one line each: *file: cause; fix*.

Checks collect `Problem`s instead of stopping at the first; a command shows all of them and exits with code 2.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from library import console
from library.secrets import hide_tokens
from library.stopping import Stopped, exit_code, signals_stop

T = TypeVar("T")
P = ParamSpec("P")
E = TypeVar("E", bound="UserError")

EXIT_CODE = 2
FAULT_CODE = 70  # sysexits.h: an internal software error
_heard: list[list[str]] = []  # the warnings that each `hears_warnings` has heard, the innermost last
_held: list[_HeldWarnings] = []  # what `warnings_in_order` keeps until its end; one at most


@dataclass(frozen=True)
class Problem:
    """One thing that the user has to fix.

    where: the file, folder or option it is about.
    cause: what is wrong with it.
    fix: what to do next; may be empty.
    """

    where: str
    cause: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.cause}"
        return f"{text}; {self.fix}" if self.fix else text


class UserError(Exception):
    """Inputs that cannot be used. Carries the problems to show; never shown as a traceback."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        # Names that are not UTF-8 are escaped: whoever logs an error may not be able to write them.
        text = "\n".join(map(str, self.problems))
        super().__init__(text.encode("utf-8", "backslashreplace").decode())

    @classmethod
    def of(cls: type[E], where: object, cause: str, fix: str = "") -> E:
        """An error with a single problem."""
        return cls([Problem(str(where), cause, fix)])


@dataclass
class Problems:
    """Collects problems. `attempt` runs a check and keeps its problems, so that the next check still runs."""

    found: list[Problem] = field(default_factory=list)

    def add(self, where: object, cause: str, fix: str = "") -> None:
        self.found.append(Problem(str(where), cause, fix))

    def attempt(self, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The check's result, or None if it raised UserError, whose problems are kept."""
        try:
            return check(*args, **kwargs)
        except UserError as error:
            self.found.extend(error.problems)
            return None

    def raise_if_any(self) -> None:
        """Raises UserError with every problem found so far, each once."""
        if self.found:
            raise UserError(dict.fromkeys(self.found))


@console.lasting()
def run_command(main: Callable[[], None], *, unfinished: str = "") -> None:
    """Run a command's main(). A UserError becomes lines on stderr and exit code 2, without a traceback.

    Ctrl-C, SIGTERM and a closed terminal (SIGHUP) end it with a line and code 130, 143 or 129. An error that
    nobody expected is one line with the file that has its traceback, and code 70; with ATELIER_DEBUG in the
    environment the traceback is printed too. Of several processes only the first on each machine prints what
    users have to mend.

    unfinished: what that line says of the command's work if nothing else does.
    """
    quiet_libraries()
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with signals_stop(), hears_warnings():
            main()
    except KeyboardInterrupt as stop:
        if is_first:
            kept = (stop.kept if isinstance(stop, Stopped) else "") or unfinished
            console.fail(f"\nstopped: {kept}" if kept else "\nstopped")
        sys.exit(exit_code(stop))
    except UserError as error:
        if is_first:
            count = len(error.problems)
            console.fail(f"{count} problem{'s' if count > 1 else ''} found:")
            for problem in error.problems:
                console.fail(f"  {hide_tokens(str(problem))}")
        sys.exit(EXIT_CODE)
    except Exception as error:
        console.fail(_last_words(error))
        sys.exit(FAULT_CODE)


def _last_words(error: Exception) -> str:
    """What is said of an error that nobody expected: a full disk or memory as what it is, anything else as a
    fault of the program, with its traceback in a file.
    """
    full = "".join(traceback.format_exception(error))
    if os.environ.get("ATELIER_DEBUG"):
        console.fail(hide_tokens(full))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full: {error.filename or error}; make room and resume"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: {_first_line(error)}; --dry_run shows what would take less"
    place = f"{Path(sys.argv[0]).stem or 'atelier'}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    path = Path(tempfile.gettempdir()) / place
    try:
        path.write_text(hide_tokens(full), encoding="utf-8", errors="backslashreplace")
        details = f"details in {path}"
    except OSError:
        details = hide_tokens(full)
    what = f"{type(error).__name__}: {_first_line(error)}"
    return hide_tokens(f"this is a fault of Atelier: {what}; {details}")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else "without a message"


def quiet_libraries() -> None:
    """Silence warnings of libraries that say nothing about a run."""
    # bitsandbytes, on every import without a GPU: an optional kernel for 4-bit layers, which we do not use.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # bitsandbytes again: we warn of this ourselves.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    # Pillow, about images that it can read; one that it cannot is a Problem.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # diffusers, about a sampler that users choose by name and that it still has.
    warnings.filterwarnings("ignore", message=".*algorithm_types? dpmsolver.*", category=FutureWarning)
    # transformers, when diffusers imports it: image processors that would rather have torchvision.
    logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)


def warn(message: str) -> None:
    """Print one line about something the user may not expect, in the first process only."""
    if _held:
        _held[-1].lines.append(message)
    elif os.environ.get("LOCAL_RANK", "0") == "0":
        line = hide_tokens(message)
        console.warn(line)
        for lines in _heard[-1:]:
            lines.append(line)


def warn_idle(setting: str, why: str) -> None:
    """Warn that a setting has no effect here. Inside `warnings_in_order`, all of these become one line.

    setting: how messages name it: `--flip_aug`, `data.toml:12: dataset 1: keep_tokens:`.
    why: what follows "has no effect": `without --enable_bucket`; may be empty.
    """
    if _held:
        _held[-1].idle[setting] = why
    else:
        warn(_idle_line({setting: why}))


@contextmanager
def warnings_in_order() -> Iterator[None]:
    """Context manager around a command's checks: warnings inside it are printed at its end, those about
    settings without effect first, in one line. Files that other programs generate have many of these, which
    would hide the few warnings that matter.
    """
    if _held:  # the outer one prints them
        yield
        return
    held = _HeldWarnings()
    _held.append(held)
    try:
        yield
    finally:
        _held.pop()
        if held.idle:
            warn(_idle_line(held.idle))
        for line in dict.fromkeys(held.lines):
            warn(line)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Context manager: inside it, warnings are dropped."""
    _held.append(_HeldWarnings())
    try:
        yield
    finally:
        _held.pop()


@dataclass
class _HeldWarnings:
    """idle: settings without effect, and why. lines: the other warnings."""

    idle: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def _idle_line(idle: Mapping[str, str]) -> str:
    """One line about settings without effect, those with the same reason together."""
    if len(idle) == 1:
        [(setting, why)] = idle.items()
        if why.startswith(("with ", "without ", "in ", "as ")):
            return f"{setting} has no effect {why}"
        return f"{setting.rstrip(':')} has no effect" + (f": {why}" if why else "")
    by_reason: dict[str, list[str]] = {}
    for setting, why in idle.items():
        by_reason.setdefault(why, []).append(setting.rstrip(":"))
    named = [_one_place(settings) + (f" ({why})" if why else "") for why, settings in by_reason.items()]
    return f"{len(idle)} settings have no effect here: {', '.join(named)}"


def _one_place(settings: Sequence[str]) -> str:
    """`gui.toml: a, b` for settings of one file."""
    shown, before = [], ""
    for setting in settings:
        place, colon, name = setting.rpartition(": ")
        shown.append(name if colon and place == before else setting)
        before = place
    return ", ".join(shown)


@contextmanager
def hears_warnings() -> Iterator[Sequence[str]]:
    """Context manager: the lines that `warn` prints inside it, from any thread, as a list that grows."""
    _heard.append([])
    try:
        yield _heard[-1]
    finally:
        _heard.pop()


def warnings_heard() -> Sequence[str]:
    """The warnings since this command began, as a list that grows. Empty outside of `hears_warnings`."""
    return _heard[-1] if _heard else ()
