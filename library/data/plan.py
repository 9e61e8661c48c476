"""A plan, then work: the batches of an epoch as a pure function, and where each stands in the run.

Batches are global: `batch_size` samples for each of `processes`, all of one bucket. A rank takes its share. A
short batch is padded with copies that carry no weight, so the number of processes does not change what is
learned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from library.data.buckets import Size
from library.randomness import keyed_random


@dataclass(frozen=True)
class BucketSamples:
    """The samples of one dataset that have one size.

    dataset: its index.
    size: (width, height) of the bucket.
    samples: their numbers.
    """

    dataset: int
    size: Size
    batch_size: int
    samples: tuple[int, ...]


class HasBuckets(Protocol):
    """What a plan is made from: `TrainingData`."""

    @property
    def buckets(self) -> Sequence[BucketSamples]: ...


@dataclass(frozen=True)
class GlobalBatch:
    """Samples of one bucket for all processes together, at most batch_size x processes.

    dataset: its index.
    size: (width, height) of the bucket.
    samples: their numbers.
    """

    dataset: int
    size: Size
    samples: tuple[int, ...]

    def share(self, rank: int, processes: int) -> tuple[tuple[int, ...], int]:
        """A rank's samples, and how many of them are real. The batch is padded to a multiple of `processes`
        with copies of its last sample; ranks take contiguous parts of equal length.
        """
        length = math.ceil(len(self.samples) / processes)
        share = self.samples[rank * length : (rank + 1) * length]
        return share + self.samples[-1:] * (length - len(share)), len(share)


def plan_epoch(data: HasBuckets, seed: int, epoch: int, processes: int) -> list[GlobalBatch]:
    """The batches of an epoch, in order. Equal arguments give equal plans, whose length does not depend on
    seed and epoch. Every sample is in exactly one batch.
    """
    batches = []
    for bucket in data.buckets:
        samples = list(bucket.samples)
        keyed_random(seed, "bucket order", epoch, bucket.dataset, *bucket.size).shuffle(samples)
        length = bucket.batch_size * processes
        batches += [
            GlobalBatch(bucket.dataset, bucket.size, tuple(samples[start : start + length]))
            for start in range(0, len(samples), length)
        ]
    keyed_random(seed, "batch order", epoch).shuffle(batches)
    return batches


def batches_per_epoch(data: HasBuckets, processes: int) -> int:
    """The length of every epoch's plan."""
    return sum(math.ceil(len(bucket.samples) / (bucket.batch_size * processes)) for bucket in data.buckets)


@dataclass(frozen=True)
class Position:
    """Where a batch stands in the run. All counts start at 0.

    batch: its index in the epoch's plan.
    step: the optimizer step it belongs to.
    window: how many batches that step accumulates.
    closes: whether it is the last of them.
    """

    epoch: int
    batch: int
    step: int
    window: int
    closes: bool


@dataclass(frozen=True)
class Course:
    """How epochs are divided into optimizer steps of `accumulation` batches.

    A step never spans two epochs: the last of an epoch may have fewer batches. So a step number alone says
    where the run is.
    """

    batches_per_epoch: int
    accumulation: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.accumulation)

    def positions(self, first_step: int, last_step: int) -> Iterator[Position]:
        """The batches of steps `first_step` up to, but not including, `last_step`."""
        for step in range(first_step, last_step):
            epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
            start = step_in_epoch * self.accumulation
            end = min(start + self.accumulation, self.batches_per_epoch)
            for batch in range(start, end):
                yield Position(epoch, batch, step, window=end - start, closes=batch == end - 1)
