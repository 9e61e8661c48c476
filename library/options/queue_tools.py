"""Options of the run queue: those before the verb, and a section for each verb that has some."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.fields import below, option, refuse

CONFIG_FILE = "--config_file"  # may stand before an option file that is added, as behind a trainer


def read_numbers(value: object) -> tuple[int, ...]:
    """`3` or `1,2`. Raises ValueError for anything else."""
    words = str(value).replace(",", " ").split()
    if not words or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise ValueError(f"expects numbers of runs such as 3 or 1,2, got {str(value)!r}")
    return tuple(dict.fromkeys(map(int, words)))


@dataclass(frozen=True)
class QueueOptions:
    """The queue, before the verb."""

    queue: Path = option(None, "folder of the queue; add makes it", metavar="DIR")

    def __post_init__(self) -> None:
        refuse((self.queue is None, "queue", "is needed: the folder of the queue, before the verb"))


@dataclass(frozen=True)
class AddOptions:
    """add: before the trainer or option file."""

    sweep: str | None = option(
        None, 'a run for each combination: "network_dim=8,16;learning_rate=1e-4,2e-4"', metavar="VALUES"
    )
    after: tuple[int, ...] = option(
        (), "start only when these runs are done: 1 or 1,2", convert=read_numbers, metavar="RUNS"
    )
    script: str | None = option(
        None, "the trainer of an option file that does not tell, such as train_db.py", metavar="FILE"
    )
    gpus: int | None = option(
        None,
        "how many GPUs the run trains on (default: what accelerate launch was told, else 1)",
        metavar="N",
    )

    def __post_init__(self) -> None:
        refuse(*below(1, self, "gpus"))


@dataclass(frozen=True)
class RunnerOptions:
    """run."""

    slots: int | None = option(
        None, "runs at the same time, a GPU each (default: one for each GPU; on the CPU one)", metavar="N"
    )
    tries: int = option(3, "give a run up that has died this often without getting on", metavar="N")
    state_minutes: float = option(
        15.0, "runs without --save_state save a state this often, which is removed at the end", metavar="X"
    )

    def __post_init__(self) -> None:
        refuse(
            *below(1, self, "slots", "tries"),
            (self.state_minutes < 0, "state_minutes", "must be 0 or more"),
        )


@dataclass(frozen=True)
class NumbersOptions:
    """stop, retry and remove."""

    runs: tuple[int, ...] = option(
        None, "numbers of runs: 3 or 1,2", convert=read_numbers, positional=True, metavar="runs"
    )

    def __post_init__(self) -> None:
        refuse((self.runs is None, "<runs>", "is needed: a number that list shows, or several: 1,2"))


@dataclass(frozen=True)
class MoveOptions(NumbersOptions):
    """move."""

    last: bool = option(False, "behind all others instead of before them")


@dataclass(frozen=True)
class PauseOptions:
    """pause."""

    off: bool = option(False, "start runs again")
