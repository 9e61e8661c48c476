"""Sixty runs on a simulated card: what each batch took and what the card told, healthy and sick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from library.training.pace.findings import GB, Finding, Reading, Sign
from library.training.pace.watch import LOOK_EVERY, TimedBatch, Watch

COOL = Reading(total=12 * GB, free=3 * GB, reserved=8 * GB, celsius=64, clock=1850, top_clock=1900)
WINDOWS = replace(COOL, lends=True)
FULL = replace(WINDOWS, free=GB // 10, reserved=10 * GB)
Values = Callable[[Random, int], float]  # (draws, step from 1) -> a factor, or seconds
Readings = Callable[[int], Reading]  # step -> what the card tells


def always(value: float) -> Values:
    return lambda draws, step: value


def card(reading: Reading) -> Readings:
    return lambda step: reading


@dataclass(frozen=True)
class Trace:
    """A run.

    sign: of what is told of it; None for a healthy one.
    onset: the step from which it is sick.
    steps: of the run.
    base: seconds of a batch in the first bucket.
    noise: the standard deviation of a batch's time, relative.
    buckets: how many sizes there are, drawn at random; the last is twice as large as the first.
    accumulation: batches of a step.
    factor: times as long as the base.
    first: the same for the first batches of each bucket.
    wait: seconds that a batch is waited for.
    card: what it tells.
    lines: how often it is told.
    """

    name: str
    sign: Sign | None = None
    onset: int = 1
    steps: int = 200
    base: float = 2.1
    noise: float = 0.06
    buckets: int = 1
    accumulation: int = 1
    factor: Values = always(1.0)
    first: tuple[float, ...] = ()
    wait: Values = always(0.0)
    card: Readings = card(COOL)
    lines: int = 1

    def told(self, seed: int) -> list[tuple[int, Finding]]:
        """What the watch finds, with the step after which it does."""
        draws, watch = Random(f"{self.name} {seed}"), Watch()
        seen: Counter[tuple[int, bool]] = Counter()
        found: list[tuple[int, Finding]] = []
        for step in range(1, self.steps + 1):
            for batch in self._batches(draws, step, seen):
                watch.add(batch)
            if step == 1 or step % LOOK_EVERY == 0:
                finding = watch.look(self.card(step))
                found += [(step, finding)] if finding else []
        return found

    def _batches(self, draws: Random, step: int, seen: Counter[tuple[int, bool]]) -> Iterator[TimedBatch]:
        for number in range(self.accumulation):
            bucket = draws.randrange(self.buckets)
            growth = 1 + bucket / max(1, self.buckets - 1)
            kind = (bucket, number == self.accumulation - 1)
            seconds = self.base * growth**1.3 * self.factor(draws, step) * draws.lognormvariate(0, self.noise)
            if seen[kind] < len(self.first):
                seconds *= self.first[seen[kind]]
            seen[kind] += 1
            yield TimedBatch(kind, int(65536 * growth), seconds, self.wait(draws, step))


def sick(name: str, sign: Sign, onset: int, *, factor: Values | float = 1.0, **more: object) -> Trace:
    """A run that is sick from a step on. factor, wait, card: from then on; before, all is well."""
    wait, ill = more.pop("wait", 0.0), more.pop("card", COOL)
    well = more.pop("well", WINDOWS if isinstance(ill, Reading) and ill.lends else COOL)
    assert isinstance(well, Reading)
    return Trace(
        name,
        sign,
        onset,
        factor=_since(onset, factor, 1.0),
        wait=_since(onset, wait, 0.0),  # type: ignore[arg-type]
        card=lambda step: (ill(step) if callable(ill) else ill) if step >= onset else well,  # type: ignore[return-value]
        **more,  # type: ignore[arg-type]
    )


def _since(onset: int, value: Values | float, before: float) -> Values:
    return lambda draws, step: before if step < onset else value(draws, step) if callable(value) else value


def between(low: float, high: float) -> Values:
    return lambda draws, step: draws.uniform(low, high)


def bursts(workers: int, seconds: float) -> Values:
    """Workers that build batches side by side: one batch of so many waits for all of them."""
    return lambda draws, step: seconds * draws.uniform(0.8, 1.2) if step % workers == 0 else 0.0


def at(steps: set[int], value: float, otherwise: float) -> Values:
    return lambda draws, step: value if step in steps else otherwise


def slider(draws: Random, step: int) -> float:
    """A slider's batch is denoised by 1 to 50 steps first."""
    return 0.1 * draws.randrange(1, 50)


def worse(draws: Random, step: int) -> float:
    """Three times as long, then twelve times."""
    return 3 if step < 140 else 12


OVER = replace(WINDOWS, free=0, reserved=14 * GB)
LENT = replace(FULL, shared=2 * GB)
HOT = replace(COOL, is_hot=True, celsius=88, clock=1100)
TAKEN = replace(COOL, free=GB // 2, reserved=8 * GB)  # 2.5 GB more than before are neither free nor ours
TIGHT = replace(COOL, free=GB // 5, reserved=8 * GB)

SICK = (
    # The system lends main memory.
    sick("WSL, from the first step", "spill", 1, card=OVER),
    sick("Windows, from the first step", "spill", 1, card=LENT),
    sick("8 GB, from the first step", "spill", 1, card=replace(OVER, total=8 * GB, reserved=9 * GB)),
    sick("24 GB, from the first step", "spill", 1, card=replace(OVER, total=24 * GB, reserved=25 * GB)),
    sick("3 hours become 50", "spill", 60, factor=17, card=FULL),
    sick("a little, after 250 steps", "spill", 250, factor=2.6, card=FULL, steps=400),
    sick("shared memory is told", "spill", 45, factor=2.4, card=LENT),
    sick("shared memory, no slower yet", "spill", 120, card=LENT),
    sick("twenty buckets", "spill", 300, factor=8, buckets=20, card=FULL, steps=450),
    sick("by fits and starts", "spill", 90, factor=between(6, 12), card=FULL),
    sick("fast steps", "spill", 150, base=0.05, factor=12, card=FULL),
    sick("slow steps", "spill", 41, base=22, factor=5, card=FULL, steps=120),
    sick("four batches a step", "spill", 77, factor=6, accumulation=4, card=FULL),
    sick("an AMD card", "spill", 66, factor=4, card=replace(COOL, free=GB // 10, shared=3 * GB)),
    sick("more and more", "spill", 60, factor=worse, card=LENT, lines=2),
    # No cause to be seen.
    sick("three and a half times", "slow", 60, factor=3.6),
    sick("ten times", "slow", 133, factor=10),
    sick("after long health", "slow", 800, factor=5, steps=900),
    sick("noisy", "slow", 70, factor=6, noise=0.2),
    sick("ten buckets", "slow", 200, factor=5, buckets=10, steps=320),
    sick("Linux, nearly full", "slow", 90, factor=4, card=TIGHT, well=TIGHT),
    sick("a slider", "slow", 150, factor=lambda draws, step: 12 * slider(draws, step) + 8, steps=260),
    sick("two batches a step", "slow", 50, factor=4, accumulation=2),
    # Another process on the card.
    sick("a game", "neighbour", 80, factor=2.2, card=TAKEN),
    sick("takes what was free", "neighbour", 95, card=replace(COOL, free=GB // 4)),
    sick("as the driver lists it", "neighbour", 60, factor=2, card=replace(COOL, others=5 * GB),
         well=replace(COOL, others=0)),
    sick("one that was there grows", "neighbour", 60, factor=1.9, card=replace(COOL, others=6 * GB),
         well=replace(COOL, others=2 * GB)),
    sick("two buckets", "neighbour", 110, factor=2.5, buckets=2, card=TAKEN),
    sick("much slower", "neighbour", 55, factor=9, card=TAKEN),
    # Heat.
    sick("dust", "heat", 90, factor=1.8, card=HOT),
    sick("from the first step", "heat", 1, card=HOT, well=HOT),
    sick("a laptop", "heat", 60, factor=2.4, card=replace(HOT, clock=700, celsius=96)),
    sick("slower memory, no slower steps", "heat", 100, card=replace(HOT, clock=1300)),
    sick("five buckets", "heat", 150, factor=1.9, buckets=5, card=HOT, steps=250),
    # Data.
    sick("no cache", "data", 1, wait=between(3, 6)),
    sick("a disk that became slow", "data", 100, wait=between(4, 9)),
    sick("four workers", "data", 1, wait=bursts(4, 20)),
    sick("eight workers", "data", 1, wait=bursts(8, 60)),
    sick("fast steps, slow pictures", "data", 30, base=0.2, wait=between(0.5, 0.9)),
    sick("a network drive", "data", 60, base=1.2, wait=between(2, 6), noise=0.15),
)  # fmt: skip

HEALTHY = (
    Trace("first steps", first=(60, 4)),
    Trace("compiled for each bucket", first=(40, 9), buckets=12, base=0.8, steps=300),
    Trace("buckets of many sizes", buckets=30, noise=0.1, steps=400),
    Trace("each bucket is rare", buckets=100, first=(5, 1.5), steps=400),
    Trace("previews fill the card", card=lambda step: FULL if step > 40 else WINDOWS),
    Trace("saves: an idle disk wakes up", wait=at({50, 100, 150}, 30, 0)),
    Trace("a laptop slept within a step", factor=at({90}, 14000, 1)),
    Trace("a laptop slept while a batch was made", wait=at({90}, 28800, 0)),
    Trace("a laptop slept five times in a row", factor=at({81, 83, 85, 87, 89}, 900, 1)),
    Trace("a busy machine", noise=0.3, steps=600),
    Trace("some steps are long", factor=lambda draws, step: 10 if draws.random() < 0.04 else 1, steps=400),
    Trace("a slider", factor=slider, steps=600),
    Trace("pictures with and without masks", factor=lambda draws, step: draws.choice((1, 1.8)), steps=400),
    Trace("text encoders are done", factor=lambda draws, step: 1 if step < 100 else 0.6),
    Trace("a card used to its end", card=card(replace(COOL, free=GB // 20, reserved=11 * GB))),
    Trace("Windows, used to its end", card=card(replace(FULL, shared=GB // 3)), noise=0.1),
    Trace("a neighbour that was there", card=card(replace(TAKEN, others=3 * GB))),
    Trace("warm", card=card(replace(HOT, clock=1700)), factor=lambda draws, step: min(1.3, 1 + step / 400)),
    Trace("hot at one look", card=lambda step: HOT if step == 80 else COOL),
    Trace("a loader that just keeps up", wait=between(0, 1.2), factor=between(0.9, 1.1)),
)
