"""What users do with runs that were added: stop, remove, retry, move."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from library import byte_locks
from library.problems import Problems, UserError
from library.queue.folder import Entry, Queue
from library.queued import END, MOST_PROCESSES, write_json


def stop(queue: Queue, number: int) -> str:
    """Stop a run: one that waits at once, one that runs at its next step, with its state saved. Returns what
    happens, in words.
    """
    entry = queue.find(number)
    if entry.state == "waiting":
        if queue.move(entry, "stopped") is not None:
            return "stopped"
        entry = queue.find(number)
    if entry.state == "running":
        (queue.run_folder(number) / END).write_text("user", encoding="utf-8")
        return "will save its state and stop"
    raise UserError.of(f"run {number}", f"is {entry.state}", "only what waits or runs can be stopped")


def retry(queue: Queue, number: int) -> str:
    """Let a run that failed or was stopped wait again; it goes on from its newest state."""
    entry = queue.find(number)
    if entry.state not in ("failed", "stopped"):
        raise UserError.of(
            f"run {number}", f"is {entry.state}", "only what failed or was stopped is tried again"
        )
    folder = queue.run_folder(number)
    write_json(folder / "tries.json", queue.read(number, "tries.json") | {"deaths": 0})
    for name in (END, "reason.json"):
        (folder / name).unlink(missing_ok=True)
    queue.move(entry, "waiting")
    return "waits"


def remove(queue: Queue, number: int) -> str:
    """Take a run out of the queue, with its log. Its results and states stay."""
    entry = queue.find(number)
    lock = queue.run_folder(number) / "trainer.lock"
    if entry.state == "running" or byte_locks.is_held(lock, count=MOST_PROCESSES):
        raise UserError.of(f"run {number}", "is running", "stop it first")
    waiting = [
        other.number
        for other in queue.entries()
        if other.state in ("waiting", "stopped") and number in queue.added(other.number).after
    ]
    if waiting and entry.state != "done":
        raise UserError.of(f"run {number}", f"run {waiting[0]} waits for it", "remove that first")
    taken = queue.move(entry, "stopped")  # so that no runner starts it meanwhile
    if taken is None:
        raise UserError.of(f"run {number}", "has just been started", "stop it first")
    queue.discard(taken)
    shutil.rmtree(queue.run_folder(number), ignore_errors=True)
    return "removed; its results and states are kept"


def move(queue: Queue, numbers: Sequence[int], *, last: bool) -> None:
    """Put runs that wait before all others, in this order, or behind them."""
    problems, waiting = Problems(), [entry.number for entry in queue.waiting()]
    for number in numbers:
        entry: Entry | None = problems.attempt(queue.find, number)
        if entry is not None and number not in waiting:
            problems.add(f"run {number}", f"is {entry.state}", "only what waits can be moved")
    problems.raise_if_any()
    rest = [number for number in waiting if number not in numbers]
    order = [*rest, *numbers] if last else [*numbers, *rest]
    write_json(queue.folder / "order.json", {"first": order})
