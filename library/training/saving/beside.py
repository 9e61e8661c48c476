"""Work that a thread does beside training, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Beside:
    """A thread for work that training need not wait for. What follows from the work is done in the thread
    that asks for it: by `poll` once the work is done, or by `wait`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="saving")
        self._running: tuple[Future[None], Callable[[], None]] | None = None

    def start(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Begin the work, after which `then` is to be called if it raised nothing."""
        assert self._running is None, "one thing at a time"
        self._running = self._pool.submit(work), then

    @property
    def is_done(self) -> bool:
        """Whether there is work that has ended, and nothing has followed from it yet."""
        return self._running is not None and self._running[0].done()

    @property
    def is_busy(self) -> bool:
        """Whether there is work that was begun and that nothing has followed from yet."""
        return self._running is not None

    def wait(self) -> None:
        """Wait for the work, if there is any, and do what follows from it. Raises what it raised."""
        if self._running is None:
            return
        (work, then), self._running = self._running, None
        work.result()
        then()
