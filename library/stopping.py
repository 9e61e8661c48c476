"""Ctrl-C, SIGTERM and SIGHUP end a command with a line about what was saved and the shell's exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from library.launcher import find_launcher

GRACE = 5.0  # seconds from a signal to the end, whatever the program is doing
ECHO = 3.0  # seconds after a signal in which a launcher may repeat it


class Stopped(KeyboardInterrupt):
    """The command was asked to stop.

    number: the signal.
    kept: what was saved of its work, in words for the user; empty if that is not known.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.kept = number, ""


def exit_code(stop: KeyboardInterrupt) -> int:
    """The shell's code for the signal: 130, 143 or 129."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a program to stop: Ctrl-C, SIGTERM, and SIGHUP, which a terminal sends when it is
    closed (Windows has no SIGHUP; `nohup` makes the program ignore it).
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        signals.append(hang_up)
    return signals


def is_echo(number: int, first_at: float) -> bool:
    """Whether a signal may only repeat the one before: shells and the system both send SIGHUP; a terminal
    sends Ctrl-C to torchrun too, which passes it on, and when a launcher ends we send ourselves SIGTERM.

    first_at: when that one came (time.monotonic).
    """
    if number == getattr(signal, "SIGHUP", None):
        return True
    launcher = find_launcher()
    if launcher is None:
        return False
    return time.monotonic() - first_at < ECHO or (number == signal.SIGTERM and launcher.is_gone())


@contextmanager
def signals_stop() -> Iterator[None]:
    """Context manager: inside, the first signal raises Stopped and a second one ends the program at once.

    The program also ends GRACE seconds after the first: a library may swallow the exception or work on.
    """
    owner = os.getpid()
    first_at: float | None = None

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        if first_at is not None and os.getpid() == owner and is_echo(number, first_at):
            return
        if first_at is not None or os.getpid() != owner:  # forked processes inherit this handler
            os._exit(128 + number)
        first_at = time.monotonic()
        timer = threading.Timer(GRACE, _end, [number])
        timer.daemon = True
        timer.start()
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    old = {number: signal.signal(number, take) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _end(number: int) -> None:
    print("\nstopped", file=sys.stderr, flush=True)
    os._exit(128 + number)
