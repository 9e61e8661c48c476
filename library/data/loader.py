"""The loader: positions in a run -> batches, built by worker processes, by a thread, or when asked for.

A batch is a function of its position. So the workers hold no state, nothing depends on how many there are,
and they read ahead over the end of an epoch.
"""

from __future__ import annotations

import queue
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from library.data.batch import Batch
from library.data.plan import Position
from library.problems import Problem, UserError

BATCHES_AHEAD = 4

T = TypeVar("T")


class Builder(ABC):
    """position -> this rank's batch, always the same. Can be pickled when there are worker processes.

    uses_processes: whether building takes so long that processes are worth their cost; else a thread builds
        ahead.
    """

    uses_processes = False

    @abstractmethod
    def build(self, position: Position) -> Batch:
        """The batch at a position. Raises UserError when something in it cannot be used."""

    def for_worker(self) -> Builder:
        """What a worker process gets: without what is too large to be copied there."""
        return self

    def complete(self, batch: Batch) -> Batch:
        """Add what `for_worker` left out, in the main process."""
        return batch


def make_loader(
    builder: Builder, positions: Iterable[Position], *, workers: int = 0, pin_memory: bool = False
) -> Generator[Batch, None, None]:
    """The batches at `positions`, in order: one iterator for a whole run.

    workers: how many processes build batches ahead; with 0, a batch is built when it is asked for. A builder
        that does not use processes, e.g. one with cached latents, has a thread instead.

    Exceptions raised while a batch is built are raised here; a bad image is a UserError. Close the iterator
    unless it is read to its end: worker processes live as long as it does.
    """
    if workers > 0 and builder.uses_processes:
        yield from _from_processes(builder, positions, workers, pin_memory)
        return
    batches: Iterator[Batch] = map(builder.build, positions)
    if pin_memory:
        batches = map(Batch.pin_memory, batches)
    yield from _from_thread(batches) if workers > 0 else batches


@dataclass
class _InWorker:
    """The builder as torch's DataLoader indexes it, in a worker process. A UserError cannot be pickled back
    as it is, so its problems are sent.
    """

    builder: Builder

    def __getitem__(self, position: Position) -> Batch | list[Problem]:
        try:
            return self.builder.build(position)
        except UserError as error:
            return error.problems


def _from_processes(
    builder: Builder, positions: Iterable[Position], workers: int, pin_memory: bool
) -> Iterator[Batch]:
    import torch
    from torch.utils.data import DataLoader

    loader: DataLoader[Batch | list[Problem]] = DataLoader(
        _InWorker(builder.for_worker()),  # type: ignore[arg-type]  # torch only indexes it
        batch_size=None,
        sampler=positions,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the DataLoader draws a number; not from the global generator
    )
    for batch in loader:
        if isinstance(batch, list):
            raise UserError(batch)
        yield builder.complete(batch)


def _unchanged(batch: T) -> T:
    """Instead of torch's default, which would take a Batch apart."""
    return batch


def _start_worker(worker: int) -> None:
    """OpenCV's own threads hang in a forked process, and the workers share the cores anyway.

    Ctrl-C and SIGTERM reach every process of a run. The main one then saves the run's state, for which it
    may need further batches, so workers ignore both and live until it ends them.
    """
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)


def _from_thread(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, built ahead in a thread that ends with this iterator. Its exceptions are raised
    here.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(BATCHES_AHEAD)
    is_over = threading.Event()

    def work() -> None:
        try:
            for batch in batches:
                ready.put(batch)
                if is_over.is_set():
                    return
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_over.set()
        while not ready.empty():  # the thread may be waiting for room in the queue
            ready.get_nowait()
        thread.join()
