"""What a batch of each kind usually takes, learned from those before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

SETTLING = 2  # batches of a kind that tell nothing: kernels are chosen, compiled or recorded
IN_MEDIAN = 5  # batches of a kind one after the other
FEWEST = 10  # batches of a kind before its time is known
MANY = 20  # batches of a kind that show how they differ
MEMORY = 100  # batches of a kind whose spread is remembered


@dataclass
class ExpectedTimes:
    """The seconds that a batch of a kind takes while nothing is wrong."""

    _kinds: dict[Hashable, _Kind] = field(default_factory=dict)

    def learn(self, kind: Hashable, size: int, seconds: float) -> None:
        """Take in a batch. size: how many numbers its latents have."""
        self._kinds.setdefault(kind, _Kind(size)).learn(seconds)

    def seconds(self, kind: Hashable, size: int) -> float | None:
        """What a batch of this kind takes, or, for a kind that is not known yet, what it takes at most by the
        one that is most like it. None before any kind is known.
        """
        own = self._kinds.get(kind)
        if own is not None and own.is_known:
            return own.usual
        known = [one for one in self._kinds.values() if one.is_known]
        if not known:
            return None
        like = min(known, key=lambda one: abs(one.size - size))
        # Attention grows with the square of a picture's size, and nothing grows faster.
        return like.usual * max(1.0, (size / like.size) ** 2)


@dataclass
class _Kind:
    """size: of a batch."""

    size: int
    _best: float = float("inf")
    _last: deque[float] = field(default_factory=lambda: deque(maxlen=IN_MEDIAN))
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    _usual: float | None = None

    def learn(self, seconds: float) -> None:
        self._seconds.append(seconds)
        self._last.append(seconds)
        if len(self._last) == IN_MEDIAN:
            self._best = min(self._best, sorted(self._last)[IN_MEDIAN // 2])
        self._usual = None

    @property
    def is_known(self) -> bool:
        return len(self._seconds) >= FEWEST

    @property
    def usual(self) -> float:
        """Seconds: the best median, but where batches of one kind differ by nature, as a slider's do by how
        far they are denoised, at least half of what the longest take.
        """
        if self._usual is None:
            times = sorted(self._seconds)
            long = times[int(0.9 * (len(times) - 1))] if len(times) >= MANY else times[-1]
            self._usual = max(self._best, long / 2)
        return self._usual
