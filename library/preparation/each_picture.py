"""Something made of every picture of a folder: several at a time in threads, each written as soon as it is
there, so that what was done stays, whatever stops the command.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from library.console import progress_bar
from library.files import NotWritten
from library.problems import Problems, UserError
from library.stopping import Stopped
from library.wording import counted

R = TypeVar("R")

MOST_READERS = 4  # by default


@dataclass
class Worked:
    """What became of the pictures.

    done: how many were worked on to the end.
    made: how many files were made of these.
    problems: of the others.
    """

    done: int = 0
    made: int = 0
    problems: Problems = field(default_factory=Problems)


def work_on_each(pictures: Sequence[Path], work: Callable[[Path], int], *, goes_on: str) -> Worked:
    """Work on all pictures; those that raise UserError are left out, with a problem.

    work: a picture's file -> how many files it made of it, in a thread. Raises NotWritten, which ends all.
    goes_on: what a user does to go on with the rest, for the message when the command is stopped.
    Raises Stopped that says how many were done.
    """
    worked, readers = Worked(), min(MOST_READERS, os.cpu_count() or 1)
    made = read_ahead(pictures, work, readers=readers, ahead=2 * readers)
    try:
        with closing(made):
            for _, found in progress_bar(made, total=len(pictures), desc="pictures", unit="img"):
                if isinstance(found, UserError):
                    worked.problems.found.extend(found.problems)
                else:
                    worked.done, worked.made = worked.done + 1, worked.made + found
    except Stopped as stop:
        stop.kept = f"{worked.done} of {counted(len(pictures), 'picture')} done; {goes_on}"
        raise
    return worked


def read_ahead(
    paths: Iterable[Path], read: Callable[[Path], R], *, readers: int, ahead: int
) -> Generator[tuple[Path, R | UserError], None, None]:
    """Each path with what was read of it, or why it could not be, in order. Some threads read ahead.

    ahead: how many are read before they are asked for, at most.
    """

    def attempt(path: Path) -> R | UserError:
        try:
            return read(path)
        except NotWritten:
            raise  # what cannot be written for one picture cannot be for the next
        except UserError as error:
            return error

    waiting: deque[tuple[Path, Future[R | UserError]]] = deque()
    rest = iter(paths)
    pool = ThreadPoolExecutor(readers)
    try:
        while True:
            for path in islice(rest, ahead - len(waiting)):
                waiting.append((path, pool.submit(attempt, path)))
            if not waiting:
                return
            path, future = waiting.popleft()
            yield path, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
