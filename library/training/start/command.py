"""A trainer's first chapter: what it is asked for, and what it trains on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from library.options.parser import read_command_line
from library.problems import warnings_in_order
from library.training.processes import start_missing_processes
from library.training.run import TrainingRun

if TYPE_CHECKING:
    from library.training.batches import BatchSource
    from library.training.start.pictures import Pictures
    from library.training.start.preflight import MakeBatches

    B = TypeVar("B", bound=BatchSource)

R = TypeVar("R", bound=TrainingRun)
_checking = False  # whether commands end after their checks


class Checked(Exception):
    """A trainer's command has passed its checks. run: what it was asked for."""

    def __init__(self, run: TrainingRun) -> None:
        super().__init__()
        self.run = run


@contextmanager
def only_checks() -> Iterator[None]:
    """Context manager: inside, a trainer's main() raises Checked where it would begin."""
    global _checking
    _checking = True
    try:
        yield
    finally:
        _checking = False


def _goes_on(run: TrainingRun) -> None:
    if _checking:
        raise Checked(run)


def begin(
    run_type: type[R], doc: str | None, *, family: str | None = None, argv: Sequence[str] | None = None
) -> tuple[R, Pictures]:
    """The run that the command line asks for and its scanned pictures. With --debug_dataset the page about
    them is written, and the program ends.

    family: the only one that the command trains, by its name in FAMILIES; None: any.
    argv: the words of the command line; None: those of sys.argv.
    Raises UserError with all problems of the options and of the files they name.
    """
    with warnings_in_order():
        reading = read_command_line(run_type, doc, argv)
        if not _checking:
            start_missing_processes()
        # After --help: the checks import what reads images.
        from library.training.start.preflight import check, scan_pictures

        run, pictures = check(reading, scan_pictures, family)
    _goes_on(run)
    if run.data.debug_dataset:
        from library.training.watching.dataset_page import show_dataset

        show_dataset(run, pictures.data)
        sys.exit(0)
    return run, pictures


def begin_with(
    make_batches: MakeBatches[B], run_type: type[R], doc: str | None, *, family: str | None = None
) -> tuple[R, B]:
    """The same for a trainer of something else than pictures. make_batches: makes that, from the reading of
    the command line and the model's latents; it raises UserError with everything that is wrong.
    """
    with warnings_in_order():
        reading = read_command_line(run_type, doc)
        if not _checking:
            start_missing_processes()
        from library.training.start.preflight import check

        run, batches = check(reading, make_batches, family)
    _goes_on(run)
    return run, batches
