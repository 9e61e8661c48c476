"""Ctrl-C, SIGTERM and SIGHUP end a run at the next batch with its state saved; a second signal ends it at
once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from library.stopping import is_echo, stop_signals

# What signal.signal takes and returns.
Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Interruption:
    """Context manager; inside it the first signal only sets `requested`.

    signal: the number of that signal; None before it.
    exit_code: the exit code of a program that this signal ended, as shells count them.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._first_at = 0.0
        self._previous: dict[int, Handler] = {}

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> Interruption:
        for number in stop_signals():
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and is_echo(number, self._first_at):
            return
        if self.requested:
            os._exit(128 + number)
        self.signal, self._first_at = number, time.monotonic()
