"""Finished runs side by side: settings that differ, losses, and what they draw for the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.queue.folder import Added, Queue
from library.queued import SUMMARY

MOST_COLUMNS = 12  # settings that differ
# Settings that say where things are, not what a run is.
_PLACES = {"output_name", "output_dir", "logging_dir", "resume", "console_log_file", "wandb_run_name"}


@dataclass(frozen=True)
class Summary:
    """How far a run has come, by its report's figures; summary.json.

    step: steps done.
    loss: smoothed; None without a report.
    lowest: the lowest validation loss; None without validation.
    lowest_step: steps done when it was measured.
    pictures: its last previews, (number of the prompt, prompt, data: URL) each.
    """

    step: int = 0
    loss: float | None = None
    lowest: float | None = None
    lowest_step: int = 0
    pictures: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    number: int
    added: Added
    summary: Summary


def finished_runs(queue: Queue) -> list[Finished]:
    """All that are done: those with validation first, the lowest loss first; the others by number."""
    found = []
    for entry in queue.entries():
        if entry.state == "done":
            found.append(Finished(entry.number, queue.known(entry.number), summary_of(queue, entry.number)))
    return sorted(found, key=_place)


def _place(run: Finished) -> tuple[bool, float, int]:
    lowest = run.summary.lowest
    return lowest is None, lowest if lowest is not None else 0.0, run.number


def differing(runs: Sequence[Finished]) -> tuple[list[str], int]:
    """The names of settings in which runs differ, at most MOST_COLUMNS, and how many more there are."""
    names = dict.fromkeys(name for run in runs for name in run.added.settings)
    found = [
        name
        for name in names
        if name not in _PLACES and any(_value(run, name) != _value(runs[0], name) for run in runs)
    ]
    return found[:MOST_COLUMNS], len(found[MOST_COLUMNS:])


def shown(run: Finished, name: str) -> str:
    """A setting's value in words."""
    value = _value(run, name)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _value(run: Finished, name: str) -> Any:
    return run.added.settings.get(name)


def report_of(added: Added) -> Path:
    """The page of a run's report."""
    return Path(added.output_dir) / f"{added.name}-report.html"


def summary_of(queue: Queue, number: int) -> Summary:
    """What a run's trainer has written of it so far; an empty one without a report."""
    with suppress(TypeError):
        return Summary(**queue.read(number, SUMMARY))
    return Summary()
