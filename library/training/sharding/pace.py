"""Batches for processes that go at one pace: a batch that one of them cannot make ends the run in all."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from library.data.batch import Batch
from library.problems import Problem, UserError
from library.training.session import Session


def at_one_pace(batches: Iterable[Batch], session: Session) -> Generator[Batch, None, None]:
    """The batches of this process, as many as each has. Raises UserError in all processes together, with the
    problems of all, when one of them cannot make its batch. To be closed.
    """
    rest = iter(batches)
    try:
        while True:
            batch: Batch | None = None
            problems: list[Problem] = []
            try:
                batch = next(rest, None)
            except UserError as error:
                problems = error.problems
            session.sharing().raise_together(problems)
            if batch is None:
                return
            yield batch
    finally:
        if isinstance(rest, Generator):
            rest.close()
