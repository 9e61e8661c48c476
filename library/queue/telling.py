"""What a list of the runs says."""

from __future__ import annotations

import time
from collections.abc import Iterator

from library.queue.folder import Entry, Queue

# Settings that do not change how long a run takes.
_TIMELESS = {"output_name", "output_dir", "seed", "learning_rate", "logging_dir", "resume"}


def lines(queue: Queue) -> Iterator[str]:
    """A line for each run and one about the queue."""
    entries = queue.entries()
    order = {entry.number: place for place, entry in enumerate(queue.waiting())}
    shown = sorted(
        entries, key=lambda entry: (entry.state == "waiting", order.get(entry.number, entry.number))
    )
    for entry in shown:
        yield f"{entry.number:>4}  {entry.state:<8} {queue.added(entry.number).name}{_about(queue, entry)}"
    if not entries:
        yield "the queue is empty"
    if why := queue.why_paused():
        yield f"paused: {why}; start runs again with: pause --off, or run"


def _about(queue: Queue, entry: Entry) -> str:
    if entry.state in ("failed", "stopped") and (
        reason := queue.read(entry.number, "reason.json").get("reason")
    ):
        return f"  {reason}"
    if entry.state in ("waiting", "running"):
        seconds = estimate(queue, entry.number)
        after = queue.added(entry.number).after if entry.state == "waiting" else []
        words = [f"after {', '.join(map(str, after))}"] if after else []
        words.append(f"takes about {_duration(seconds)}" if seconds is not None else "time unknown")
        return f"  {', '.join(words)}"
    if (seconds := duration(queue, entry.number)) is not None:
        return f"  took {_duration(seconds)}"
    return ""


def duration(queue: Queue, number: int) -> float | None:
    """Seconds that a finished run took in one go; None for one that was interrupted."""
    tries, outcome = queue.read(number, "tries.json"), queue.read(number, "outcome.json")
    if outcome.get("kind") != "done" or tries.get("tries") != 1:
        return None
    return max(0.0, float(outcome["time"]) - float(tries.get("started", time.time())))


def estimate(queue: Queue, number: int) -> float | None:
    """Seconds by finished runs with equal settings, but for those that change no time; None without one."""
    own = _timed(queue, number)
    found = [
        seconds
        for entry in queue.entries()
        if entry.state == "done" and _timed(queue, entry.number) == own
        if (seconds := duration(queue, entry.number)) is not None
    ]
    return sorted(found)[len(found) // 2] if found else None


def _timed(queue: Queue, number: int) -> tuple[object, ...]:
    added = queue.added(number)
    settings = {name: value for name, value in added.settings.items() if name not in _TIMELESS}
    return added.script, added.gpus, sorted(settings.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
