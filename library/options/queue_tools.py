"""Options of the run queue, a section for each of its verbs."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, option, refuse


def read_numbers(value: object) -> tuple[int, ...]:
    """`3` or `1,2`. Raises ValueError for anything else."""
    words = str(value).replace(",", " ").split()
    if not words or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise ValueError(f"expects numbers of runs such as 3 or 1,2, got {str(value)!r}")
    return tuple(dict.fromkeys(map(int, words)))


@dataclass(frozen=True)
class AddOptions:
    """Add."""

    sweep: str | None = option(
        None, 'a run for each combination: "network_dim=8,16;learning_rate=1e-4,2e-4"', metavar="VALUES"
    )
    after: tuple[int, ...] = option(
        (), "start only when these runs are done: 1 or 1,2", convert=read_numbers, metavar="RUNS"
    )
    script: str | None = option(None, "the trainer of an option file, such as sdxl_train.py", metavar="FILE")
    gpus: int = option(1, "how many GPUs the run trains on", metavar="N")

    def __post_init__(self) -> None:
        refuse(*below(1, self, "gpus"))


@dataclass(frozen=True)
class RunnerOptions:
    """Run."""

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
class ListOptions:
    """List."""


@dataclass(frozen=True)
class NumbersOptions:
    """Runs."""

    runs: tuple[int, ...] = option(
        None, "numbers of runs: 3 or 1,2", convert=read_numbers, positional=True, metavar="runs"
    )

    def __post_init__(self) -> None:
        refuse((self.runs is None, "<runs>", "is needed: a number that list shows, or several: 1,2"))


@dataclass(frozen=True)
class PauseOptions:
    """Pause."""

    off: bool = option(False, "start runs again")


@dataclass(frozen=True)
class MoveOptions(NumbersOptions):
    """Move."""

    last: bool = option(False, "behind all others instead of before them")
