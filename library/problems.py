"""What is wrong with a user's inputs, one line each: *file: cause; fix*.

Checks collect `Problem`s instead of stopping at the first; a command shows all of them and exits with code 2.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn, ParamSpec, TypeVar

from library import console, faults, queued
from library.console import is_first_process
from library.launcher import end_with_launcher
from library.secrets import hide_tokens
from library.stopping import Stopped, exit_code, signals_stop
from library.wording import one_line

T = TypeVar("T")
P = ParamSpec("P")
E = TypeVar("E", bound="UserError")

EXIT_CODE = 2
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
        return one_line(f"{text}; {self.fix}" if self.fix else text)


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
    """Run a command's main(). A UserError, and what the machine lacks (memory, room, a connection), become
    lines on stderr and exit code 2, without a traceback; any other exception becomes one line and exit code
    70, with the details in a file.

    Ctrl-C, SIGTERM, a closed terminal (SIGHUP) and the end of accelerate launch end it with one line and code
    130, 143 or 129. Of several processes only the first on each machine prints, except about faults.

    unfinished: what that line says of the command's work if nothing else does.
    """
    quiet_libraries()
    with queued.reported():
        _run(main, unfinished)


def _run(main: Callable[[], None], unfinished: str) -> None:
    try:
        with signals_stop(), hears_warnings(), faults.threads_tell(_tell_of_thread):
            end_with_launcher(warn)
            _begin_queued()
            main()
    except KeyboardInterrupt as stop:
        _end_stopped(stop, unfinished)
    except UserError as error:
        _note(error.problems, error)
        if is_first_process():
            _show(error.problems)
        sys.exit(EXIT_CODE)
    except Exception as error:
        stopped = faults.stop_behind(error)
        if stopped is not None:
            _end_stopped(stopped, unfinished)
        _end_broken(error)


def _begin_queued() -> None:
    """If this is a run of a queue, make sure that it is the only process of it."""
    if queued.RUN is None:
        return
    try:
        queued.RUN.begin(warn)
    except OSError as error:
        cause = f"cannot be locked or written to ({error.strerror or error})"
        raise UserError.of(
            queued.RUN.folder, cause, "make room, or put the queue on another drive"
        ) from error


def _show(problems: Sequence[Problem]) -> None:
    count = len(problems)
    console.fail(f"{count} problem{'s' if count > 1 else ''} found:")
    for problem in problems:
        console.fail(f"  {hide_tokens(str(problem))}")


def _end_stopped(stop: KeyboardInterrupt, unfinished: str) -> NoReturn:
    if is_first_process():
        kept = (stop.kept if isinstance(stop, Stopped) else "") or unfinished
        console.fail(f"\nstopped: {kept}" if kept else "\nstopped")
    sys.exit(exit_code(stop))


def _end_broken(error: Exception) -> NoReturn:
    """End after an exception that nothing expected. Every process says its own: the first may only notice
    that another one is gone.
    """
    if console.is_debugging():
        console.fail(faults.details_of(error))
    explained = faults.explain(error)
    if explained is not None:
        _note([Problem(*explained)], error)
        _show([Problem(*explained)])
        sys.exit(EXIT_CODE)
    _note([faults.reason_of(error)], error)
    console.fail(_fault_line(error))
    sys.exit(faults.EXIT_CODE)


def _note(reasons: Sequence[object], error: Exception) -> None:
    """Remember why a run of a queue ends."""
    if queued.RUN is not None:
        queued.RUN.note([hide_tokens(str(reason)) for reason in reasons], error)


def _tell_of_thread(error: BaseException) -> None:
    explained = faults.explain(error)
    warn(str(Problem(*explained)) if explained else f"{_fault_line(error)}; the rest goes on")


def _fault_line(error: BaseException) -> str:
    where = "" if is_first_process() else f"process {os.environ['LOCAL_RANK']}: "
    path = faults.write_details(error)
    details = f"details in {path}, for a bug report" if path else "--debug shows the details"
    return f"{where}this is a fault of Atelier: {faults.reason_of(error)}; {details}"


def quiet_libraries() -> None:
    """Silence warnings of libraries that say nothing about a run."""
    # bitsandbytes, on devices without its own code: optional kernels (kernels-community) that we do not use.
    logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)
    # bitsandbytes again: we warn of this ourselves.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    # Pillow, about images that it can read; one that it cannot is a Problem.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # diffusers, about a sampler that users choose by name and that it still has.
    warnings.filterwarnings("ignore", message=".*algorithm_types? dpmsolver.*", category=FutureWarning)
    # accelerate, about a name of DDP's that torch means to change.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    # transformers, when diffusers imports it: image processors that would rather have torchvision.
    logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)


def warn(message: str) -> None:
    """Print one line about something the user may not expect, in the first process only."""
    if _held:
        _held[-1].lines.append(message)
    elif is_first_process():
        line = one_line(hide_tokens(message))
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
