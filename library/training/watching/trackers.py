"""The trackers of a run. One that fails is dropped with a warning: training continues without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from library.problems import warn

if TYPE_CHECKING:
    from PIL.Image import Image

    from library.training.optimization.ledger import Balance


@dataclass(frozen=True)
class Drawn:
    """A preview.

    number: of its prompt, from 0.
    prompt: as in the prompt file.
    picture: what was drawn.
    """

    number: int
    prompt: str
    picture: Image


class Tracker(Protocol):
    """Something that logs a run; see `Trackers` for what the methods are told. Any of them may raise."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def show(self, step: int, previews: list[Drawn]) -> None: ...

    def conclude(self, balance: Balance) -> None: ...

    def close(self, patience: float) -> None: ...


@dataclass
class Trackers:
    """A run's trackers; there are none except in the first process.

    trackers: by name.
    place: what a resumed run needs to continue the same logs, by the tracker's name.
    """

    trackers: dict[str, Tracker] = field(default_factory=dict)
    place: dict[str, str] = field(default_factory=dict)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log figures after `step` steps, by name."""
        self._each(lambda tracker: tracker.write(step, values))

    def show(self, step: int, previews: list[Drawn]) -> None:
        """Log pictures drawn after `step` steps."""
        self._each(lambda tracker: tracker.show(step, previews))

    def conclude(self, balance: Balance) -> None:
        """Log what was trained, when the run ends or is stopped."""
        self._each(lambda tracker: tracker.conclude(balance))

    def close(self, patience: float) -> None:
        """Send what is left, for `patience` seconds at most."""
        self._each(lambda tracker: tracker.close(patience))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # libraries, networks and disks fail in many ways
                del self.trackers[name]
                warn(f"{name} failed ({tell(error)}): this run goes on without it")


@contextmanager
def only_told(what: str) -> Iterator[None]:
    """Context manager for what a run only tells: inside it an exception becomes a warning, as no figure may
    cost what was learned. what: is being told.
    """
    try:
        yield
    except Exception as error:
        warn(f"{what} could not be made ({tell(error)}); nothing that is saved depends on it")


def tell(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
