"""Clock: how long the parts of a run take, on the device, without waiting for it.

A mark is put where a part begins and ends. On CUDA that is an event of the stream, which is read once the
device has passed it; elsewhere work is done when a call returns, and the time of day does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from library.training.pace.watch import TimedBatch

if TYPE_CHECKING:
    import torch

Part = Literal["waiting for data", "forward", "backward", "optimizer", "validation", "saving", "previews"]
PARTS: tuple[Part, ...] = (
    "waiting for data",
    "forward",
    "backward",
    "optimizer",
    "validation",
    "saving",
    "previews",
)
Mark = Any  # a torch.cuda.Event, or seconds
T = TypeVar("T")


class Marks(Protocol):
    """Moments on a device."""

    def mark(self) -> Mark:
        """The moment at which the device will have done all that it was given so far."""

    def is_past(self, mark: Mark) -> bool:
        """Whether it is there. Waits for nothing."""

    def wait(self, mark: Mark) -> None:
        """Wait until it is past."""

    def seconds(self, first: Mark, second: Mark) -> float:
        """Between two moments that are past."""

    def reuse(self, mark: Mark) -> None:
        """The moment will not be asked about any more."""


class HostMarks:
    """Moments of a device that is done when a call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def is_past(self, mark: float) -> bool:
        return True

    def wait(self, mark: float) -> None:
        pass

    def seconds(self, first: float, second: float) -> float:
        return second - first

    def reuse(self, mark: float) -> None:
        pass


class CudaMarks:
    """Moments of the current CUDA stream: events, made once and used again."""

    def __init__(self) -> None:
        self._unused: list[torch.cuda.Event] = []

    def mark(self) -> torch.cuda.Event:
        import torch

        event = self._unused.pop() if self._unused else torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def is_past(self, mark: torch.cuda.Event) -> bool:
        return mark.query()

    def wait(self, mark: torch.cuda.Event) -> None:
        mark.synchronize()

    def seconds(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        return first.elapsed_time(second) / 1000

    def reuse(self, mark: torch.cuda.Event) -> None:
        self._unused.append(mark)


@dataclass
class _Stretch:
    """Marks that follow one another. batch: what the step saw, (kind, size, seconds of waiting on the host);
    None for other parts of a run.
    """

    start: Mark
    ends: list[tuple[Part, Mark]] = field(default_factory=list)
    batch: tuple[Hashable, int, float] | None = None


class Clock:
    """Tells how long parts of a run take.

    seconds: so far, by part; of the parts that the device is through with when `passed` is called.
    """

    def __init__(self, marks: Marks, now: Callable[[], float] = time.perf_counter) -> None:
        """now: seconds on the host, for the time in which a batch is waited for."""
        self.marks, self._now = marks, now
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._open: _Stretch | None = None
        self._closed: deque[_Stretch] = deque()
        self._waited = 0.0
        self._last_end: Mark | None = None

    def waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; how long each is waited for is remembered."""
        while True:
            before = self._now()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += self._now() - before
            yield batch

    def begin(self, kind: Hashable, size: int) -> None:
        """A batch's forward pass begins. The arguments are those of TimedBatch."""
        self._close()
        self._open = _Stretch(self.marks.mark(), batch=(kind, size, self._waited))
        self._waited = 0.0

    def end(self, part: Part) -> None:
        """A part of the batch's way ends, and the next one begins, unless it was the optimizer's."""
        if self._open is not None:
            self._open.ends.append((part, self.marks.mark()))
            if part == "optimizer":
                self._close()

    @contextmanager
    def part(self, part: Part) -> Generator[None, None, None]:
        """Context manager: what is done inside is part of a run beside its steps."""
        self._close()
        stretch = _Stretch(self.marks.mark())
        try:
            yield
        finally:
            stretch.ends.append((part, self.marks.mark()))
            self._closed.append(stretch)

    def passed(self) -> list[TimedBatch]:
        """The batches that the device is through with and that were not told yet."""
        found = []
        while self._closed and self.marks.is_past(self._closed[0].ends[-1][1]):
            timed = self._read(self._closed.popleft())
            if timed is not None:
                found.append(timed)
        return found

    def conclude(self) -> None:
        """Wait for the device, and count what is left. For the end of a run."""
        self._close()
        if self._closed:
            self.marks.wait(self._closed[-1].ends[-1][1])
        self.passed()

    def _close(self) -> None:
        if self._open is not None and self._open.ends:
            self._closed.append(self._open)
        self._open = None

    def _read(self, stretch: _Stretch) -> TimedBatch | None:
        begin, end = stretch.start, stretch.ends[-1][1]
        idle = 0.0 if self._last_end is None else max(0.0, self.marks.seconds(self._last_end, begin))
        before = begin
        for part, mark in stretch.ends:
            self.seconds[part] += self.marks.seconds(before, mark)
            before = mark
        timed = None
        if stretch.batch is not None:
            kind, size, waited = stretch.batch
            # A host that runs ahead waits for batches while the device is busy: that costs nothing.
            waited = min(waited, idle) if self._last_end is not None else waited
            self.seconds["waiting for data"] += waited
            timed = TimedBatch(kind, size, self.marks.seconds(begin, end), waited)
        self._forget(stretch)
        return timed

    def _forget(self, stretch: _Stretch) -> None:
        used = [stretch.start, *(mark for _, mark in stretch.ends[:-1])]
        if self._last_end is not None:
            used.append(self._last_end)
        self._last_end = stretch.ends[-1][1]
        for mark in used:
            self.marks.reuse(mark)


def make_clock(device: torch.device) -> Clock:
    """The clock of a run on a device."""
    return Clock(CudaMarks() if device.type == "cuda" else HostMarks())
