"""What becomes of a run whose trainer has ended."""

from __future__ import annotations

from dataclasses import dataclass, replace

from library.queue.folder import Added, Queue, Record, State
from library.queue.states import newest_state, remove_unwanted
from library.queued import OUTCOME

_FROM_OUTSIDE = {-9, -15, 137, 143}  # exit codes after SIGKILL and SIGTERM


@dataclass(frozen=True)
class Verdict:
    """What is next for a run.

    state: the one it gets.
    record: how it went so far, with the reason in words.
    pauses: whether the queue pauses for it.
    is_fault: whether it failed by itself, and was not ended from outside.
    """

    state: State
    record: Record
    pauses: bool = False
    is_fault: bool = False


def judge(queue: Queue, number: int, added: Added, *, code: int | None, tries: int) -> Verdict:
    """By the run's outcome file, never by its exit code; a trainer that wrote none was killed.

    code: its exit code, for the reason; None when its runner was gone or has asked it to end, so that the end
        says nothing about the run.
    tries: how often a run may die without getting on.
    """
    record, outcome = queue.record(number), queue.read(number, OUTCOME)
    if outcome.get("try") != record.tries:  # of an earlier try
        outcome = {}
    kind, reason = outcome.get("kind"), "; ".join(map(str, outcome.get("reasons", ())))
    if kind == "done":
        remove_unwanted(added)
        return Verdict("done", replace(record, reason=""))
    told = replace(record, reason=reason)
    if kind == "wrong":
        return Verdict("failed", told, is_fault=True)
    if queue.stop_file(number).exists():
        return Verdict("stopped", told)
    if kind == "full":
        return Verdict("waiting", told, pauses=True)
    if code is None:
        return Verdict("waiting", replace(record, reason=""))
    was_stopped = kind == "stopped"
    cause = "the trainer was stopped from outside" if was_stopped else f"the trainer died (exit code {code})"
    told = replace(told, reason=reason or f"{cause}; see {queue.run_folder(number) / 'log.txt'}")
    return _of_death(added, told, tries, is_fault=not was_stopped and code not in _FROM_OUTSIDE)


def _of_death(added: Added, record: Record, tries: int, *, is_fault: bool) -> Verdict:
    """Of a run that broke or was killed under its runner's eyes."""
    state = newest_state(added)
    step = state[1] if state else 0
    deaths = 1 if step > record.step else record.deaths + 1
    return Verdict(
        "failed" if deaths >= tries else "waiting",
        replace(record, step=step, deaths=deaths),
        is_fault=is_fault,
    )
