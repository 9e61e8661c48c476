"""What users do with runs that were added: stop, remove, retry, move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from library import byte_locks
from library.problems import Problems, UserError
from library.queue.folder import Entry, Queue
from library.queued import write_json

_MOST_RACES = 10


def stop(queue: Queue, number: int) -> str:
    """Stop a run: one that waits at once, one that runs at its next step, with its state saved. Returns what
    happens, in words.
    """
    for _ in range(_MOST_RACES):
        entry = queue.find(number)
        if entry.state == "running" and not is_orphan(queue, entry):
            # Whoever finds this file obeys it: the trainer, and a runner that would start the run again.
            queue.stop_file(number).touch()
            return "will save its state and stop"
        if entry.state not in ("waiting", "running"):
            break
        if queue.move(entry, "stopped") is not None:
            return "stopped"
    raise UserError.of(f"run {number}", f"is {entry.state}", "only what waits or runs can be stopped")


def is_orphan(queue: Queue, entry: Entry) -> bool:
    """Whether a run that runs has lost its runner, and its trainer has ended. Not to be asked by a runner of
    its own runs: looking would lose its lock.
    """
    is_left = not byte_locks.is_held(queue.runner_file(entry.runner))
    return is_left and not queue.trainer_lives(entry.number)


def retry(queue: Queue, number: int) -> str:
    """Let a run that failed or was stopped wait again; it goes on from its newest state."""
    entry = queue.find(number)
    if entry.state not in ("failed", "stopped"):
        fix = "only what failed or was stopped is tried again"
        raise UserError.of(f"run {number}", f"is {entry.state}", fix)
    queue.write_record(number, replace(queue.record(number), deaths=0, reason=""))
    queue.stop_file(number).unlink(missing_ok=True)
    queue.move(entry, "waiting")
    return "waits"


def remove(queue: Queue, number: int) -> str:
    """Take a run out of the queue, with its log. Its results and states stay."""
    entry = queue.find(number)
    if entry.state == "running" or queue.trainer_lives(number):
        raise UserError.of(f"run {number}", "is running", "stop it first")
    waiting = [
        other.number
        for other in queue.entries()
        if other.state in ("waiting", "stopped") and number in queue.known(other.number).after
    ]
    if waiting and entry.state != "done":
        raise UserError.of(f"run {number}", f"run {waiting[0]} waits for it", "remove that first")
    if not queue.discard(entry):
        raise UserError.of(f"run {number}", "has just been started", "stop it first")
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
