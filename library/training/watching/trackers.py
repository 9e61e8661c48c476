"""The trackers that a run asks for. One that fails is told once and left alone: training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from library.problems import warn

if TYPE_CHECKING:
    from PIL.Image import Image

    from library.training.optimization.ledger import Balance


@dataclass(frozen=True)
class Drawn:
    """A preview: the (0-based) number of its prompt, the prompt, the picture."""

    number: int
    prompt: str
    picture: Image


class Tracker(Protocol):
    """Where figures go. Any of these may fail."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def show(self, step: int, previews: list[Drawn]) -> None: ...

    def conclude(self, balance: Balance) -> None: ...

    def close(self, patience: float) -> None: ...


@dataclass
class Trackers:
    """A run's trackers by name; none but in the first process. place: what a later run needs to go on in
    the same log.
    """

    trackers: dict[str, Tracker] = field(default_factory=dict)
    place: dict[str, str] = field(default_factory=dict)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after `step` steps, by name."""
        self._each(lambda tracker: tracker.write(step, values))

    def show(self, step: int, previews: list[Drawn]) -> None:
        """Pictures drawn after `step` steps."""
        self._each(lambda tracker: tracker.show(step, previews))

    def conclude(self, balance: Balance) -> None:
        """What was trained, when the run ends or is stopped."""
        self._each(lambda tracker: tracker.conclude(balance))

    def close(self, patience: float) -> None:
        """Send what is left, for at most so many seconds."""
        self._each(lambda tracker: tracker.close(patience))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # libraries, networks and disks fail in many ways
                del self.trackers[name]
                warn(f"{name} failed ({tell(error)}): this run goes on without it")


def tell(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
