"""Ctrl-C and SIGTERM end a command with one line that says what was kept, and with the shell's exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 5.0  # seconds from a signal to the end, whatever the program is in


class Stopped(KeyboardInterrupt):
    """The command was asked to stop. kept: what there is of its work, for the user; empty when unknown."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.kept = number, ""


def exit_code(stop: KeyboardInterrupt) -> int:
    """The shell's for the signal behind it: 130 or 143."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


@contextmanager
def signals_stop() -> Iterator[None]:
    """Inside, the first signal raises Stopped; a second one ends the program at once. It also ends when GRACE
    passes: a library may take the exception for its own, or work on.
    """
    owner, is_stopping = os.getpid(), False

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        if is_stopping or os.getpid() != owner:  # processes that were forked have it too
            os._exit(128 + number)
        is_stopping = True
        timer = threading.Timer(GRACE, _end, [number])
        timer.daemon = True
        timer.start()
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():  # only that one may
        yield
        return
    old = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _end(number: int) -> None:
    print("\nstopped", file=sys.stderr, flush=True)
    os._exit(128 + number)
