"""Work before training, divided among the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, TypeVar

from library.console import progress_bar
from library.problems import Problem, UserError

K = TypeVar("K")
V = TypeVar("V")

# Values sent at a time. The latents of so many images take some tens of megabytes.
VALUES_AT_ONCE = 64

_NOTHING: Any = object()


@dataclass(frozen=True)
class Sharing:
    """One of the processes that share some work. All of them must make the same calls in the same order.

    gather: a value -> the values of all processes in the order of their ranks; it waits for all of them.
    """

    rank: int
    processes: int
    gather: Callable[[Any], list[Any]]

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, work: Sequence[V]) -> Sequence[V]:
        """This process's share: every n-th piece of work, so that shares of sorted work are alike."""
        return work[self.rank :: self.processes]

    def joined(self, share: Sequence[V]) -> list[V]:
        """The whole work again, from the shares of all processes."""
        shares = self.gather(share)
        rows = zip_longest(*shares, fillvalue=_NOTHING)
        return [value for row in rows for value in row if value is not _NOTHING]

    def merged(self, mine: Mapping[K, V]) -> dict[K, V]:
        """The entries of all processes, sent a few at a time."""
        rest = iter(mine.items())
        merged: dict[K, V] = {}
        for _ in range(max(self.gather(-(-len(mine) // VALUES_AT_ONCE)))):
            for part in self.gather(dict(islice(rest, VALUES_AT_ONCE))):
                merged.update(part)
        return merged

    @contextmanager
    def bar(self, total: int, what: str, unit: str, *, progress: bool) -> Iterator[Callable[[], object]]:
        """A progress bar for the work of all processes, shown by the first. Yields what to call after each
        piece of work of this process.
        """

        is_hidden = not progress or self.rank > 0 or total == 0
        with progress_bar(total=total, desc=what, unit=unit, disable=is_hidden) as bar:
            yield lambda: bar.update(min(self.processes, total - bar.n))

    def raise_together(self, problems: Sequence[Problem]) -> None:
        """Raise UserError in every process, with the problems of all, when any process has one."""
        found = [problem for share in self.gather(list(problems)) for problem in share]
        if found:
            raise UserError(dict.fromkeys(found))


def _only(value: V) -> list[V]:
    return [value]


ALONE = Sharing(0, 1, _only)
