"""Run trainings one after the other, surviving whatever happens to them, this program or the machine.

python tools/run_queue.py --queue my_queue add train_network.py --config_file cat.toml
python tools/run_queue.py --queue my_queue add --sweep "network_dim=8,16;learning_rate=1e-4,2e-4" cat.toml
python tools/run_queue.py --queue my_queue run
python tools/run_queue.py --queue my_queue list

Other verbs: stop, retry, remove and move, each with numbers of runs (3 or 1,2); pause; page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.parser import parse
from library.options.queue_tools import (
    CONFIG_FILE,
    AddOptions,
    MoveOptions,
    NumbersOptions,
    PauseOptions,
    QueueOptions,
    RunnerOptions,
)
from library.problems import Problems, UserError, run_command, warn
from library.queue.folder import Queue


@dataclass(frozen=True)
class Run:
    """All that a command line can have: what stands before the verb, and what after each."""

    queue: QueueOptions
    add: AddOptions
    runner: RunnerOptions
    numbers: NumbersOptions
    move: MoveOptions
    pause: PauseOptions


@dataclass(frozen=True)
class QueueRun:
    queue: QueueOptions


@dataclass(frozen=True)
class AddRun:
    add: AddOptions


@dataclass(frozen=True)
class RunnerRun:
    runner: RunnerOptions


@dataclass(frozen=True)
class NumbersRun:
    numbers: NumbersOptions


@dataclass(frozen=True)
class MoveRun:
    move: MoveOptions


@dataclass(frozen=True)
class PauseRun:
    pause: PauseOptions


@dataclass(frozen=True)
class PlainRun:
    pass


def main() -> None:
    before, verb, after = split(sys.argv[1:])
    if verb is not None and {"-h", "--help"} & {*after[:1]}:
        before = ["--queue", "."]
    folder = parse(QueueRun, __doc__, before).queue.queue
    if verb not in VERBS:
        cause = "needs a verb" if verb is None else "is no verb"
        raise UserError.of(verb or "run_queue.py", cause, f"one of {', '.join(VERBS)}")
    run_type, act = VERBS[verb]
    own, command = own_words(after) if run_type is AddRun else (after, [])
    run: Any = parse(run_type, __doc__, own)
    queue = Queue(folder.absolute())
    if run_type is AddRun:
        add(queue, run, command)
    else:
        queue.require()
        act(queue, run)


def split(words: Sequence[str], *ends: str) -> tuple[list[str], str | None, list[str]]:
    """What stands before the first word that is no option or one of `ends`, that word, and what follows it.
    Each option there has a value.
    """
    place = 0
    while place < len(words) and words[place].startswith("-") and words[place] not in ends:
        place += 1 if "=" in words[place] or words[place] in ("-h", "--help") else 2
    return list(words[:place]), words[place] if place < len(words) else None, list(words[place + 1 :])


def own_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the words after `add` its own options, and the command, which has the same words as without a
    queue.
    """
    own, first, rest = split(words, CONFIG_FILE)
    return own, [] if first is None else [first, *rest]


def add(queue: Queue, run: AddRun, command: list[str]) -> None:
    if not command:
        raise UserError.of("add", "needs a command, an option file or a folder of these", "add FILE.toml")
    from library.queue import adding

    queue.make()
    for number, name in adding.add(queue, run.add, command):
        print(f"run {number}: {name}")


def start_runs(queue: Queue, run: RunnerRun) -> None:
    from library.queue.launching import slots_of
    from library.queue.page import NAME, write_page
    from library.queue.running import Runner
    from library.queue.telling import left

    def changed() -> None:
        try:
            write_page(queue)
        except Exception as error:  # whatever it is, a page is not worth a night
            warn(f"{queue.folder / NAME}: could not be written ({error}); the runs go on")

    runner = Runner(queue, run.runner, slots_of(run.runner.slots), changed)
    code = runner.run()
    for line in left(queue, runner):
        print(line)
    sys.exit(code)


def show(queue: Queue, run: PlainRun) -> None:
    from library.queue.telling import lines

    print("\n".join(lines(queue)))


def page(queue: Queue, run: PlainRun) -> None:
    from library.queue.page import write_page

    print(f"wrote {write_page(queue)}")


def move(queue: Queue, run: MoveRun) -> None:
    from library.queue import changing

    changing.move(queue, run.move.runs, last=run.move.last)
    show(queue, PlainRun())


def pause(queue: Queue, run: PauseRun) -> None:
    if run.pause.off:
        queue.unpause()
    else:
        queue.pause("by its user", by_user=True)
    show(queue, PlainRun())


def each(verb: str) -> Callable[[Queue, NumbersRun], None]:
    """A verb that does one thing with each of some runs."""

    def act(queue: Queue, run: NumbersRun) -> None:
        from library.queue import changing

        problems = Problems()
        for number in run.numbers.runs:
            said: str | None = problems.attempt(getattr(changing, verb), queue, number)
            if said is not None:
                print(f"run {number}: {said}")
        problems.raise_if_any()

    return act


# What may follow a verb, and what it does; `add` takes a command besides.
VERBS: dict[str, tuple[type, Callable[..., None]]] = {
    "add": (AddRun, add),
    "run": (RunnerRun, start_runs),
    "list": (PlainRun, show),
    "stop": (NumbersRun, each("stop")),
    "pause": (PauseRun, pause),
    "move": (MoveRun, move),
    "page": (PlainRun, page),
    "remove": (NumbersRun, each("remove")),
    "retry": (NumbersRun, each("retry")),
}


if __name__ == "__main__":
    run_command(main)
