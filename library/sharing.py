"""Work before training, shared among the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from library.console import progress_bar
from library.problems import Problem, UserError

K = TypeVar("K")
V = TypeVar("V")

# Values sent at a time: the latents of so many images are some tens of megabytes.
VALUES_AT_ONCE = 64


@dataclass(frozen=True)
class Sharing:
    """One of the processes that share some work. All of them make the same calls in the same order.

    gather: a value -> the values of all processes, in the order of their ranks; it waits for all of them.
    """

    rank: int
    processes: int
    gather: Callable[[Any], list[Any]]

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, work: Sequence[V]) -> Sequence[V]:
        """This process's part: every n-th of it, so that all have as much of each kind if it is sorted."""
        return work[self.rank :: self.processes]

    def joined(self, share: Sequence[V]) -> list[V]:
        """All the work again, from everybody's share of it."""
        shares = self.gather(share)
        joined: list[V] = [None] * sum(map(len, shares))  # type: ignore[list-item]
        for rank, values in enumerate(shares):
            joined[rank :: self.processes] = values
        return joined

    def merged(self, mine: Mapping[K, V]) -> dict[K, V]:
        """Everybody's entries, sent a few at a time."""
        rest = iter(mine.items())
        merged: dict[K, V] = {}
        for _ in range(max(self.gather(-(-len(mine) // VALUES_AT_ONCE)))):
            for part in self.gather(dict(islice(rest, VALUES_AT_ONCE))):
                merged.update(part)
        return merged

    @contextmanager
    def bar(self, total: int, what: str, unit: str, *, progress: bool) -> Iterator[Callable[[], object]]:
        """Gives what to call for each thing that this process has done. The first one shows a bar that stands
        for all of them.
        """

        is_hidden = not progress or self.rank > 0 or total == 0
        with progress_bar(total=total, desc=what, unit=unit, disable=is_hidden) as bar:
            yield lambda: bar.update(min(self.processes, total - bar.n))

    def raise_together(self, problems: Sequence[Problem]) -> None:
        """Raises UserError in every process when there is a problem in one, with the problems of all."""
        found = [problem for share in self.gather(list(problems)) for problem in share]
        if found:
            raise UserError(dict.fromkeys(found))


def _only(value: V) -> list[V]:
    return [value]


ALONE = Sharing(0, 1, _only)
