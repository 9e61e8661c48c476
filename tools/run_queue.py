"""Run trainings one after the other, surviving whatever happens to them, this program or the machine.

python tools/run_queue.py --queue my_queue add train_network.py --config_file cat.toml
python tools/run_queue.py --queue my_queue add --sweep "network_dim=8,16;learning_rate=1e-4,2e-4" cat.toml
python tools/run_queue.py --queue my_queue run
python tools/run_queue.py --queue my_queue list

Other verbs: stop, retry, remove and move, each with numbers of runs; pause. VERB --help shows its options.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.parser import parse
from library.options.queue_tools import (
    AddOptions,
    ListOptions,
    MoveOptions,
    NumbersOptions,
    PauseOptions,
    RunnerOptions,
)
from library.paths import user_path
from library.problems import Problems, UserError, run_command
from library.queue.folder import Queue

VERBS = ("add", "run", "list", "stop", "pause", "move", "remove", "retry")


@dataclass(frozen=True)
class AddRun:
    add: AddOptions


@dataclass(frozen=True)
class RunnerRun:
    runner: RunnerOptions


@dataclass(frozen=True)
class ListRun:
    list: ListOptions


@dataclass(frozen=True)
class NumbersRun:
    numbers: NumbersOptions


@dataclass(frozen=True)
class PauseRun:
    pause: PauseOptions


@dataclass(frozen=True)
class MoveRun:
    move: MoveOptions


def main() -> None:
    queue, verb, words = read_verb(sys.argv[1:])
    if verb == "add":
        add(queue, words)
        return
    if verb == "run":
        run(queue, words)
        return
    if verb in ("stop", "remove", "retry"):
        each(queue, verb, parse(NumbersRun, __doc__, words).numbers.runs)
        return
    if verb == "move":
        options = parse(MoveRun, __doc__, words).move
        queue.require()
        from library.queue.changing import move

        move(queue, options.runs, last=options.last)
    elif verb == "pause":
        off = parse(PauseRun, __doc__, words).pause.off
        queue.require()
        queue.unpause() if off else queue.pause("by its user")
    else:
        parse(ListRun, __doc__, words)
    queue.require()
    from library.queue.telling import lines

    print("\n".join(lines(queue)))


def read_verb(words: Sequence[str]) -> tuple[Queue, str, list[str]]:
    """The queue, the verb and what follows it. Raises UserError for anything else; --help ends all."""
    folder, rest = "", list(words)
    while rest and rest[0].startswith("-"):
        flag, equals, value = rest.pop(0).partition("=")
        if flag in ("-h", "--help"):
            print(__doc__)
            sys.exit(0)
        if flag != "--queue" or not (equals or rest):
            cause = "needs a value" if flag == "--queue" else "is not known before the verb"
            raise UserError.of(flag, cause, "run_queue.py --queue FOLDER VERB ...")
        folder = value if equals else rest.pop(0)
    if not rest or rest[0] not in VERBS:
        shown = rest[0] if rest else "run_queue.py"
        raise UserError.of(shown, "is no verb" if rest else "needs a verb", f"one of {', '.join(VERBS)}")
    verb = rest.pop(0)
    if not folder and not {"-h", "--help"} & {*rest}:
        raise UserError.of("--queue", "is needed: the folder of the queue", f"--queue FOLDER {verb} ...")
    try:
        return Queue(user_path(folder or "queue").absolute()), verb, rest
    except ValueError as error:
        raise UserError.of("--queue", str(error)) from None


def add(queue: Queue, words: list[str]) -> None:
    """The verb's own options stand before the command, which has the same words as without a queue."""
    end = 0
    while end < len(words) and words[end].startswith("-"):
        end += 1 if "=" in words[end] or words[end] in ("-h", "--help") else 2
    options = parse(AddRun, __doc__, words[:end]).add
    if not words[end:]:
        raise UserError.of("add", "needs a command, an option file or a folder of these", "add FILE.toml")
    from library.queue import adding

    queue.make()
    for number, name in adding.add(queue, options, words[end:]):
        print(f"run {number}: {name}")


def run(queue: Queue, words: list[str]) -> None:
    options = parse(RunnerRun, __doc__, words).runner
    queue.require()
    from library.queue.running import Runner, devices_of

    code = Runner(queue, options, devices_of(options.slots)).run()
    if code is not None:
        sys.exit(code)


def each(queue: Queue, verb: str, numbers: Sequence[int]) -> None:
    """Do one thing with each of these runs."""
    queue.require()
    from library.queue import changing

    does: dict[str, Callable[[Queue, int], str]] = {
        "stop": changing.stop,
        "remove": changing.remove,
        "retry": changing.retry,
    }
    problems = Problems()
    for number in numbers:
        said = problems.attempt(does[verb], queue, number)
        if said is not None:
            print(f"run {number}: {said}")
    problems.raise_if_any()


if __name__ == "__main__":
    run_command(main)
