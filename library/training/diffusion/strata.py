"""Timesteps that cover their range evenly: each picture has a stratum of it, another one in each epoch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from library.randomness import keyed_random

_GOLDEN = (5**0.5 - 1) / 2  # whose multiples, modulo 1, fill 0..1 ever more evenly


class Strata:
    """Where in 0..1 the uniform number of a sample lies.

    groups: of each sample, e.g. its subset; each group is spread over 0..1 by itself.
    seed: of the run; it decides which sample is where in the first epoch.
    """

    def __init__(self, groups: Sequence[Hashable], seed: int) -> None:
        members: dict[Hashable, list[int]] = {}
        for sample, group in enumerate(groups):
            members.setdefault(group, []).append(sample)
        self._places = [0] * len(groups)
        self._counts = [0] * len(groups)
        for number, samples in enumerate(members.values()):
            places = list(range(len(samples)))
            keyed_random(seed, "strata", number).shuffle(places)
            for sample, place in zip(samples, places, strict=True):
                self._places[sample], self._counts[sample] = place, len(samples)

    def __call__(self, u: float, epoch: int, sample: int) -> float:
        """A number in [0, 1), uniform over all seeds. In an epoch one of the group is in each part of 0..1
        that is as long as 1 by their count.

        u: the sample's own uniform number in [0, 1).
        """
        count = self._counts[sample]
        walked = int(count * (epoch * _GOLDEN % 1))
        return min(((self._places[sample] + walked) % count + u) / count, 1 - 2.0**-53)
