"""What becomes of a run whose trainer has ended."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from library.queue.folder import Entry, Queue, State
from library.queue.states import newest_state, remove_unwanted
from library.queued import END, OUTCOME, write_json

INSTANT = 60.0  # seconds; a run that fails sooner may fail for what all have in common


@dataclass(frozen=True)
class Verdict:
    """The next state of a run, the reason in words, and whether the queue pauses for it."""

    state: State
    reason: str = ""
    pauses: bool = False


def judge(queue: Queue, number: int, *, code: int | None, tries: int) -> Verdict:
    """By the run's outcome file, never by its exit code; a trainer that wrote none was killed.

    code: its exit code, for the reason; None when its runner was gone, so that nobody knows how it died.
    tries: how often a run may die without getting on.
    """
    outcome, folder = queue.read(number, OUTCOME), queue.run_folder(number)
    kind, reason = outcome.get("kind"), "; ".join(map(str, outcome.get("reasons", ())))
    if kind == "done":
        remove_unwanted(queue.added(number))
        return Verdict("done")
    if _is_stopped_by_user(folder) and not reason:
        return Verdict("stopped", "was stopped; retry goes on with it")
    if kind == "full":
        return Verdict("waiting", reason, pauses=True)
    if kind == "wrong":
        return Verdict("failed", reason)
    if kind == "stopped" or code is None:
        return Verdict("waiting")
    reason = reason or f"the trainer died (exit code {code}); see {folder / 'log.txt'}"
    count = _count_death(queue, number)
    return Verdict("failed" if count >= tries else "waiting", reason)


def _is_stopped_by_user(folder: Path) -> bool:
    """A runner that ends asks for the same, but means to go on."""
    with suppress(OSError):
        return (folder / END).read_text(encoding="utf-8") == "user"
    return False


def _count_death(queue: Queue, number: int) -> int:
    """How often the run has died by now since it last got on."""
    tries = queue.read(number, "tries.json")
    state = newest_state(queue.added(number))
    step = state[1] if state else 0
    count = 1 if step > tries.get("step", 0) else tries.get("deaths", 0) + 1
    write_json(queue.run_folder(number) / "tries.json", tries | {"step": step, "deaths": count})
    return count


def settle(queue: Queue, entry: Entry, verdict: Verdict) -> None:
    """Write the reason, then rename: a run whose state is read has its reason beside it."""
    folder = queue.run_folder(entry.number)
    write_json(folder / "reason.json", {"reason": verdict.reason, "time": time.time()})
    queue.move(entry, verdict.state)
    if verdict.pauses:
        queue.pause(f"run {entry.number}: {verdict.reason}")
