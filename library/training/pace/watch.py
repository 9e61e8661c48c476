"""Watch: told the time of every batch and, every tenth step, the state of the card, it finds out when a run
crawls, and why. It touches no device and knows no clock.

Times alone say "slow"; what the card says gives the cause. So both are looked at together, and a run gets one
line instead of one for each symptom.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from library.training.pace.expected import SETTLING, ExpectedTimes
from library.training.pace.findings import GB, TIGHT, Finding, Reading, Sign

LOOK_EVERY = 10  # steps between two looks
RECENT = 10  # batches that are compared with those before
FEWEST = 6  # of these, with a time to compare with
LATE = 20  # batches before one counts as usual: by then a sickness that began with it is found
IN_WAIT = 16  # batches over which waiting for data is counted
SLOW = 3.0  # times as long as usual: worth a line whatever the reason
SLOWER = 2.0  # where the card is full besides
DISTURBED = 1.5  # where there is another cause besides
STARVING, LEAST_WAIT = 1.0, 0.1  # seconds of waiting for one of computing; seconds of waiting for a batch
COOL_CLOCK = 0.75  # of the top clock; a hot card that runs faster than that loses little
SMALLEST_CONTEXT = 100 * 2**20  # bytes; what CUDA takes for itself is never less
LEAST_SHARED = GB // 2
LEAST_NEIGHBOUR = GB
AGAIN = 2.5  # times as bad as told before
OF_THE_CARD: tuple[Sign, ...] = ("spill", "neighbour", "heat", "slow")  # the surest cause first
LOOKS_TO_SETTLE = 2  # after a line: what began a moment ago gets worse until it is whole


@dataclass(frozen=True)
class TimedBatch:
    """One batch's way through a step.

    kind: batches of one kind should take equally long.
    size: how many numbers its latents have.
    seconds: on the device, from the beginning of its forward pass to the end of its part of the step.
    waited: seconds in which the device had nothing to do because this batch was not there.
    """

    kind: Hashable
    size: int
    seconds: float
    waited: float = 0.0


@dataclass
class _Told:
    """What was said of a sign: how bad it was, and for how many looks it may still grow in silence."""

    severity: float
    settling: int = LOOKS_TO_SETTLE


@dataclass
class Watch:
    """Finds what makes a run crawl; each thing is told once, and again only when it has become much worse."""

    _expected: ExpectedTimes = field(default_factory=ExpectedTimes)
    _seen: Counter[Hashable] = field(default_factory=Counter)
    _recent: deque[TimedBatch] = field(default_factory=deque)
    _waits: deque[TimedBatch] = field(default_factory=lambda: deque(maxlen=IN_WAIT))
    _told: dict[Sign, _Told] = field(default_factory=dict)
    _least_outside: int | None = None
    _least_others: int | None = None
    _was_hot: bool = False
    _is_sick: bool = False
    _count: int = 0

    def add(self, batch: TimedBatch) -> None:
        """Take in a batch that the device is through with."""
        self._count += 1
        if self._count > SETTLING:
            self._waits.append(batch)
        self._seen[batch.kind] += 1
        if self._seen[batch.kind] <= SETTLING:
            return
        self._recent.append(batch)
        if len(self._recent) > LATE:
            old = self._recent.popleft()
            if not self._is_sick:  # else what is wrong would become usual
                self._expected.learn(old.kind, old.size, old.seconds)

    def look(self, reading: Reading) -> Finding | None:
        """What is wrong, if it is news."""
        pace = self._pace()
        # What gives the cause comes first; a slow run with a cause is not told of twice.
        found = [
            self._spill(reading, pace),
            self._neighbour(reading, pace),
            self._heat(reading, pace),
            self._slow(reading, pace),
        ]
        self._was_hot = reading.is_hot
        cause = next((one for one in found if one is not None), None)
        if self._is_sick and cause is None:
            self._recent.clear()
        self._is_sick = cause is not None
        if cause is not None and self._news_of(cause):
            return cause
        data = self._data(reading)
        return data if data is not None and self._news_of(data) else None

    def _news_of(self, finding: Finding) -> bool:
        """Whether a finding is new, or much worse than when it was told."""
        # Once the card is known to be in trouble, another name for the same trouble is no news.
        signs: tuple[Sign, ...] = ("data",) if finding.sign == "data" else OF_THE_CARD
        told = [self._told[sign] for sign in signs if sign in self._told]
        if not told:
            self._told[finding.sign] = _Told(finding.severity)
            return True
        worst = max(told, key=lambda one: one.severity)
        if worst.settling:
            worst.settling -= 1
            worst.severity = max(worst.severity, finding.severity)
            return False
        if finding.severity < AGAIN * worst.severity:
            return False
        self._told[finding.sign] = _Told(finding.severity)
        return True

    def _pace(self) -> _Pace | None:
        """How recent batches compare with what they should take; None where too little is known."""
        known = []
        for batch in list(self._recent)[-RECENT:]:
            usual = self._expected.seconds(batch.kind, batch.size)
            if usual:
                known.append((batch.seconds / usual, batch.seconds, usual))
        if len(known) < FEWEST:
            return None
        # Most of them, not their mean: one that took hours, because the machine slept, says nothing.
        ratio = statistics.median_low(ratio for ratio, _, _ in known)
        before = statistics.median(usual for _, _, usual in known)
        return _Pace(ratio, ratio * before, before)

    def _spill(self, reading: Reading, pace: _Pace | None) -> Finding | None:
        over = max(0, reading.reserved - (reading.total - SMALLEST_CONTEXT))
        lent = reading.shared or 0
        is_slower = pace is not None and pace.ratio >= SLOWER
        is_lent = lent >= LEAST_SHARED and (reading.free < GB or is_slower)
        is_likely = reading.lends and reading.free < TIGHT and is_slower
        if not (over or is_lent or is_likely):
            return None
        amount = max(over, lent if is_lent else 0)
        return _finding("spill", max(1.0, pace.ratio if pace else 1.0), reading, pace, amount)

    def _neighbour(self, reading: Reading, pace: _Pace | None) -> Finding | None:
        # Where nothing tells of other processes: what is neither free nor ours. Our own context grows in the
        # first steps, by less than this is about.
        outside = max(0, reading.total - reading.free - reading.reserved)
        self._least_outside = min(outside, outside if self._least_outside is None else self._least_outside)
        grown = outside - self._least_outside
        if reading.others is not None:
            least = reading.others if self._least_others is None else self._least_others
            self._least_others = min(reading.others, least)
            grown = reading.others - self._least_others
        costs = reading.free < TIGHT or (pace is not None and pace.ratio >= DISTURBED)
        if grown < LEAST_NEIGHBOUR or not costs:
            return None
        return _finding("neighbour", max(1.0, pace.ratio if pace else 1.0), reading, pace, grown)

    def _heat(self, reading: Reading, pace: _Pace | None) -> Finding | None:
        if not reading.is_hot or reading.clock is None or not reading.top_clock:
            return None
        is_slower = pace is not None and pace.ratio >= DISTURBED
        loses = reading.clock < COOL_CLOCK * reading.top_clock
        if not loses or not (is_slower or self._was_hot):
            return None
        severity = max(reading.top_clock / max(1, reading.clock), pace.ratio if pace else 1.0)
        return _finding("heat", severity, reading, pace)

    def _slow(self, reading: Reading, pace: _Pace | None) -> Finding | None:
        if pace is None or pace.ratio < SLOW:
            return None
        return _finding("slow", pace.ratio, reading, pace)

    def _data(self, reading: Reading) -> Finding | None:
        """Whether the device waits for data most of the time. The longest wait does not count: a disk may
        have woken up.
        """
        if len(self._waits) < IN_WAIT:
            return None
        count = len(self._waits) - 1
        waits = sorted(batch.waited for batch in self._waits)[:-1]
        wait, work = sum(waits) / count, statistics.median(batch.seconds for batch in self._waits)
        if wait < LEAST_WAIT or wait < STARVING * work:
            return None
        return Finding("data", wait / max(work, 1e-9), reading, None, work, None, wait)


@dataclass(frozen=True)
class _Pace:
    """ratio: how many times longer than usual a batch takes. now, before: in seconds."""

    ratio: float
    now: float
    before: float


def _finding(
    sign: Sign, severity: float, reading: Reading, pace: _Pace | None, amount: float = 0.0
) -> Finding:
    if pace is None:
        return Finding(sign, severity, reading, amount=amount)
    return Finding(sign, severity, reading, pace.ratio, pace.now, pace.before, amount)
