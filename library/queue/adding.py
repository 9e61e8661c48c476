"""Runs are checked as their trainer would check them, and frozen: options and the files that these name."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from library import console
from library.options.config_file import to_toml, toml_value
from library.options.fields import changed_values, sections_in
from library.options.public import public_options
from library.options.queue_tools import AddOptions
from library.problems import Problems, UserError, warnings_in_order
from library.queue.asking import Command, read_target
from library.queue.folder import Added, Queue
from library.queue.sweeping import combinations, read_sweep
from library.secrets import Secret
from library.training.run import TrainingRun
from library.training.saving.checkpoints import last_name
from library.training.start.command import Checked, only_checks

# Options whose file is copied: what a run does is what stood there when it was added. Pictures, captions and
# weights are too large for that; states notice when they have changed.
FROZEN = ("dataset_config", "sample_prompts", "prompts_file", "log_tracker_config")
# A file as an argument, such as LyCORIS' preset=mine.toml.
_ARGUMENTS = ("network_args", "optimizer_args", "lr_scheduler_args")
_ARGUMENT_FILE = re.compile(r"\.(toml|json|ya?ml|txt)$", re.IGNORECASE)
_TRAINS_NOTHING = ("dry_run", "debug_dataset", "cache_info")


@dataclass(frozen=True)
class _Asked:
    """A run that has passed its checks."""

    command: Command
    run: TrainingRun

    @property
    def result(self) -> Path:
        """The final result, without suffix: two runs must not share it."""
        saving = self.run.saving
        return saving.output_dir.absolute() / last_name(saving.output_name)


def add(queue: Queue, options: AddOptions, target: Sequence[str]) -> list[tuple[int, str]]:
    """Add the runs that a command, an option file or a folder of them asks for. Returns (number, name) of
    each; nothing is added unless everything is right.

    target: the words of a command, or a path and words that follow it.
    Raises UserError with all problems.
    """
    for number in options.after:
        queue.find(number)
    axes = read_sweep(options.sweep) if options.sweep is not None else {}
    problems, asked = Problems(), list[_Asked]()
    with warnings_in_order():  # all at once: a sweep would repeat them
        for command in read_target(target, options.script):
            run = problems.attempt(check, command)
            if run is None:
                continue
            for one in combinations(command, run, axes) if axes else [command]:
                found = problems.attempt(check, one) if axes else run
                if found is not None:
                    asked.append(_Asked(one, found))
    problems.raise_if_any()
    _refuse_same_results(queue, asked)
    return _freeze_all(queue, asked, options)


def check(command: Command) -> TrainingRun:
    """The run that a trainer's command asks for, after all its checks. Raises UserError with its problems."""
    main = importlib.import_module(command.script.removesuffix(".py")).main
    with _arguments(command), only_checks():
        try:
            main()
        except Checked as checked:
            _refuse_what_is_not_kept(checked.run)
            return checked.run
        except UserError as error:
            place = f"{command.source}: " if command.source else ""
            raise UserError(replace(one, where=f"{place}{one.where}") for one in error.problems) from None
        except SystemExit:
            pass
    fix = "leave out --help, --output_config and the like"
    raise UserError.of(command.script, "would end without training", fix)


@contextmanager
def _arguments(command: Command) -> Iterator[None]:
    """Context manager: inside, the program's words are those of the command."""
    before, sys.argv = sys.argv, [command.script, *command.words]
    try:
        yield
    finally:
        sys.argv = before
        console.set_up()  # the command may have a log file of its own


def _refuse_what_is_not_kept(run: TrainingRun) -> None:
    problems = Problems()
    for section in sections_in(run).values():
        for name, value in changed_values(section).items():
            if isinstance(value, Secret):
                fix = "log in, or set it in the environment of the runner"
                problems.add(f"--{name}", "is a token, which a queue does not keep", fix)
            elif name in _TRAINS_NOTHING:
                fix = "leave it out: runs are checked when they are added"
                problems.add(f"--{name}", "trains nothing", fix)
    problems.raise_if_any()


def _refuse_same_results(queue: Queue, asked: Sequence[_Asked]) -> None:
    """Raises UserError where two runs would write results of one name."""
    problems, taken = Problems(), dict[Path, str]()
    for entry in queue.entries():
        if entry.state in ("waiting", "running", "stopped"):
            added = queue.known(entry.number)
            taken[Path(added.output_dir) / added.name] = f"run {entry.number}"
    for one in asked:
        if one.result in taken:
            cause = f"{taken[one.result]} writes results of this name too"
            problems.add(one.result, cause, "choose another --output_name")
        taken[one.result] = "another of these runs"
    problems.raise_if_any()


def _freeze_all(queue: Queue, asked: Sequence[_Asked], options: AddOptions) -> list[tuple[int, str]]:
    """Write the folders of all runs, and only then let them wait."""
    made: list[tuple[int, Path]] = []
    try:
        for one in asked:
            number, folder = queue.new_folder()
            made.append((number, folder))
            _freeze(queue, number, one, options)
    except BaseException:
        for _, folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    for number, _ in made:
        queue.put(number)
    return [
        (number, last_name(one.run.saving.output_name)) for (number, _), one in zip(made, asked, strict=True)
    ]


def _freeze(queue: Queue, number: int, asked: _Asked, options: AddOptions) -> None:
    run, command, folder = asked.run, asked.command, queue.run_folder(number)
    tables = {
        title: {
            name: toml_value(_frozen(name, value, folder / "files" / name))
            for name, value in changed_values(section).items()
        }
        for title, section in sections_in(run).items()
    }
    (folder / "options.toml").write_text(to_toml(tables), encoding="utf-8")
    added = Added(
        name=last_name(run.saving.output_name),
        key=uuid.uuid4().hex,
        script=command.script,
        launch=None if command.launch is None else list(command.launch),
        processes=options.gpus or command.processes,
        cwd=str(Path.cwd()),
        output_dir=str(run.saving.output_dir.absolute()),
        after=list(options.after),
        keeps_states=run.saving.save_state,
        keeps_last_state=run.saving.save_state_on_train_end,
        settings=public_options(run),
    )
    queue.write_added(number, added)


def _frozen(name: str, value: object, folder: Path) -> object:
    """An option's value, with the files that it names copied into the folder."""
    if name in FROZEN and isinstance(value, Path) and value.is_file():
        return _copied(value, folder)
    if name in _ARGUMENTS and isinstance(value, tuple):
        return tuple(_frozen_argument(word, folder) for word in value)
    return value


def _frozen_argument(word: str, folder: Path) -> str:
    key, equals, path = word.partition("=")
    if equals and _ARGUMENT_FILE.search(path) and Path(path).is_file():
        return f"{key}={_copied(Path(path), folder).as_posix()}"
    return word


def _copied(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(file, folder / file.name)).absolute()
