"""What is said of the runs, and how long they may take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from library.queue.changing import is_orphan
from library.queue.folder import Entry, Queue
from library.queue.running import Runner
from library.queued import OUTCOME

# Settings that do not change how long a run takes.
_TIMELESS = {
    *("output_name", "output_dir", "seed", "learning_rate", "unet_lr", "text_encoder_lr", "logging_dir"),
    *("resume", "training_comment", "console_log_file", "wandb_run_name", "log_prefix"),
}


def lines(queue: Queue) -> Iterator[str]:
    """A line for each run and one about the queue. Not for a runner: asking for its lock would lose it."""
    entries = queue.entries()
    for entry in in_order(queue, entries):
        about = ", ".join(_about(queue, entry, entries))
        yield f"{entry.number:>4}  {entry.state:<8} {queue.known(entry.number).name}" + (
            f"  {about}" if about else ""
        )
    if not entries:
        yield "the queue is empty"
    if (paused := queue.paused) is not None:
        yield f"paused {paused[0]}" if paused[1] else f"paused: {paused[0]}"
        yield "runs start again with: pause --off, or run" if paused[1] else "runs start again with: run"


def in_order(queue: Queue, entries: Sequence[Entry]) -> list[Entry]:
    """Runs by number, those that wait behind all others, in the order in which they will be started."""
    order = {entry.number: place for place, entry in enumerate(queue.waiting())}
    return sorted(entries, key=lambda one: (one.state == "waiting", order.get(one.number, one.number)))


def left(queue: Queue, runner: Runner) -> Iterator[str]:
    """A line for each run that a runner leaves waiting, and why."""
    states = {entry.number: entry.state for entry in queue.entries()}
    for entry in queue.waiting():
        added = queue.known(entry.number)
        for number in runner.waits_for(added):
            state = states.get(number, "missing")
            yield f"run {entry.number} waits for run {number}, which is {state}"
        if (count := runner.needs(added)) > runner.slot_count:
            yield f"run {entry.number} needs {count} GPUs, but this runner has {runner.slot_count}"


def _about(queue: Queue, entry: Entry, entries: Sequence[Entry]) -> Iterator[str]:
    number, record = entry.number, queue.record(entry.number)
    if entry.state == "done":
        seconds = duration(queue, number)
        if seconds is not None:
            yield f"took {in_words(seconds)}"
        return
    if entry.state == "waiting" and (after := queue.known(number).after):
        yield f"after {', '.join(map(str, after))}"
    if entry.state == "running" and is_orphan(queue, entry):
        yield "was interrupted; run goes on with it"
    elif entry.state == "running" and queue.stop_file(number).exists():
        yield "stops"
    elif entry.state in ("waiting", "running"):
        seconds = estimate(queue, number, entries)
        yield f"takes about {in_words(seconds)}" if seconds is not None else "time unknown"
    if record.reason:
        yield record.reason


def duration(queue: Queue, number: int) -> float | None:
    """Seconds that a finished run took in one go; None for one that was interrupted."""
    record, outcome = queue.record(number), queue.read(number, OUTCOME)
    if outcome.get("kind") != "done" or record.tries != 1:
        return None
    return max(0.0, float(outcome["time"]) - record.started)


def estimate(queue: Queue, number: int, entries: Sequence[Entry]) -> float | None:
    """Seconds by finished runs with equal settings, but for those that change no time; None without one."""
    own = _timed(queue, number)
    found = [
        seconds
        for entry in entries
        if entry.state == "done" and _timed(queue, entry.number) == own
        if (seconds := duration(queue, entry.number)) is not None
    ]
    return sorted(found)[len(found) // 2] if found else None


def _timed(queue: Queue, number: int) -> tuple[object, ...]:
    added = queue.known(number)
    settings = {name: value for name, value in added.settings.items() if name not in _TIMELESS}
    return added.script, added.processes, sorted(settings.items())


def in_words(seconds: float) -> str:
    """ "1 h 05 min" or "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
