"""The loader: positions in a run -> batches, built here, in processes or in a thread.

A batch is a function of its position: the loader's processes hold no state, so nothing depends on how many
there are, and they read ahead over the end of an epoch.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from library.data.batch import Batch
from library.data.builder import BatchBuilder
from library.data.plan import Position
from library.problems import Problem, UserError

BATCHES_AHEAD = 4


def make_loader(
    builder: BatchBuilder, positions: Iterable[Position], *, workers: int = 0, pin_memory: bool = False
) -> Generator[Batch, None, None]:
    """The batches at `positions`, in order: one iterator for a whole run.

    workers: 0 builds every batch when it is asked for. With cached latents a thread builds batches ahead
    instead of processes, which would cost more than they save.

    What goes wrong while a batch is built is raised here; a bad image is a UserError. Close it when it is not
    read to its end: loader processes live as long as it does.
    """
    if workers > 0 and builder.latents is None:
        yield from _from_processes(builder, positions, workers, pin_memory)
        return
    batches: Iterator[Batch] = map(builder.build, positions)
    if pin_memory:
        batches = map(Batch.pin_memory, batches)
    yield from _from_thread(batches) if workers > 0 else batches


@dataclass
class _InProcess:
    """The builder as torch's DataLoader indexes it. A UserError does not survive the way between processes as
    it is, so its problems are sent.
    """

    builder: BatchBuilder

    def __getitem__(self, position: Position) -> Batch | list[Problem]:
        try:
            return self.builder.build(position)
        except UserError as error:
            return error.problems


def _from_processes(
    builder: BatchBuilder, positions: Iterable[Position], workers: int, pin_memory: bool
) -> Iterator[Batch]:
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        _InProcess(builder.without_texts()),
        batch_size=None,
        sampler=positions,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the loader draws a number, which must not be the global generator's
    )
    for batch in loader:
        if isinstance(batch, list):
            raise UserError(batch)
        yield builder.with_texts(batch)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _start_worker(worker: int) -> None:
    """OpenCV's own threads hang in a forked process, and the workers share the cores as it is.

    Signals reach every process of a run, which then saves its state: workers go on until it ends them.
    """
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)


def _from_thread(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, built ahead in a thread, which ends with the iterator. Its exceptions are raised
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
        while not ready.empty():  # makes room, in case the thread waits to put a batch
            ready.get_nowait()
        thread.join()
