"""Runs are checked as their trainer would check them, and frozen: options and the files that these name."""

from __future__ import annotations

import csv
import importlib
import itertools
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from library.migration.commands import OLD_NAMES, TRAINERS
from library.options.config_file import read_config_file, to_toml
from library.options.fields import changed_values, sections_in
from library.options.public import public_options
from library.options.queue_tools import AddOptions
from library.paths import name_fault
from library.problems import Problems, UserError, warnings_in_order
from library.queue.folder import Added, Queue
from library.secrets import Secret
from library.training.run import TrainingRun
from library.training.saving.checkpoints import last_name
from library.training.start.command import Checked, only_checks

_MOST_RUNS = 1000  # of one sweep
# Options whose file is copied, so that a run trains on what was there when it was added.
_FROZEN = ("dataset_config", "sample_prompts", "prompts_file")


def add(queue: Queue, options: AddOptions, target: Sequence[str]) -> list[tuple[int, str]]:
    """Add the runs that a command, an option file or a folder of them asks for. Returns (number, name) of
    each; nothing is added unless everything is right.

    target: the words of a command, or the one path.
    Raises UserError with all problems.
    """
    for number in options.after:
        queue.find(number)
    problems, checked = Problems(), list[tuple[str, TrainingRun]]()
    for script, words in _commands(target, options.script):
        for more in _combinations(options.sweep, script, words):
            run = problems.attempt(check, script, [*words, *more])
            if run is not None:
                checked.append((script, run))
    problems.raise_if_any()
    taken = {_result(added): f"run {number}" for number, added in _unfinished(queue)}
    for _, run in checked:
        result = run.saving.output_dir.absolute(), last_name(run.saving.output_name)
        if result in taken:
            cause = f"{taken[result]} writes results of this name too"
            problems.add(result[0] / result[1], cause, "choose another --output_name")
        taken[result] = "another of these runs"
        problems.attempt(_refuse_what_is_not_kept, run)
    problems.raise_if_any()
    return [_freeze(queue, script, run, options) for script, run in checked]


def check(script: str, words: Sequence[str]) -> TrainingRun:
    """The run that a trainer's command asks for, after all its checks. Raises UserError with its problems."""
    main = importlib.import_module(script.removesuffix(".py")).main
    with _arguments(script, words), only_checks(), warnings_in_order():
        try:
            main()
        except Checked as checked:
            return checked.run
        except SystemExit:
            pass
    raise UserError.of(script, "would end without training", "leave out --help, --output_config and the like")


@contextmanager
def _arguments(script: str, words: Sequence[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, [script, *words]
    try:
        yield
    finally:
        sys.argv = before


def _commands(target: Sequence[str], script: str | None) -> list[tuple[str, list[str]]]:
    """(trainer, its words) of each run that is asked for."""
    if len(target) == 1 and Path(target[0]).is_dir():
        files = sorted(Path(target[0]).glob("*.toml"))
        if not files:
            raise UserError.of(target[0], "holds no option files (.toml)")
        problems = Problems()
        found = [problems.attempt(_of_file, str(path), script) for path in files]
        problems.raise_if_any()
        return [one for one in found if one is not None]
    for index, word in enumerate(target):
        if word.lower().endswith(".py"):
            return [(_trainer(word), list(target[index + 1 :]))]
    if len(target) == 1:
        return [_of_file(target[0], script)]
    shown = target[0] if target else "add"
    fix = "give a command (train_network.py --...), an option file or a folder of these"
    raise UserError.of(shown, "is nothing that can be added", fix)


def _trainer(word: str) -> str:
    name = re.split(r"[/\\]", word)[-1]
    name = OLD_NAMES.get(name, name)
    if name not in TRAINERS:
        raise UserError.of(word, "is no trainer of Atelier", f"one of {', '.join(TRAINERS)}")
    return name


def _of_file(path: str, script: str | None) -> tuple[str, list[str]]:
    _, options = read_config_file(path)
    return (_trainer(script) if script else _told_by(path, options)), ["--config_file", path]


def _told_by(path: str, options: dict[str, Any]) -> str:
    """The trainer that an option file is for. Those for one family alone train no more than the others."""
    if "prompts_file" in options:
        return "train_leco.py"
    if "cond_emb_dim" in options:
        return "train_control_net_lllite.py"
    if options.get("network_module"):
        return "train_network.py"
    if options.get("token_string"):
        return "train_textual_inversion.py"
    fix = "say which trainer it is for: --script train_db.py"
    raise UserError.of(path, "does not tell its trainer", fix)


def _combinations(sweep: str | None, script: str, words: Sequence[str]) -> list[list[str]]:
    """The words that make each run of a sweep differ from the command."""
    if sweep is None:
        return [[]]
    axes: list[tuple[str, list[str]]] = []
    for part in next(csv.reader([sweep], delimiter=";", quotechar="\0")):
        key, equals, values = part.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        found = [value.strip() for value in next(csv.reader([values], skipinitialspace=True), [])]
        if not equals or not key or not all(found) or not found:
            fix = 'write "network_dim=8,16;learning_rate=1e-4,2e-4"'
            raise UserError.of("--sweep", f"{part!r} gives no values to an option", fix)
        if key == "output_name" or key in dict(axes):
            raise UserError.of("--sweep", f"{key} cannot be varied, or is there twice", "leave it out")
        axes.append((key, found))
    runs = list(itertools.product(*(values for _, values in axes)))
    if len(runs) > _MOST_RUNS:
        raise UserError.of("--sweep", f"asks for {len(runs)} runs", f"{_MOST_RUNS} at most")
    plain = last_name(check(script, words).saving.output_name)
    keys = [key for key, _ in axes]
    names = [
        "-".join([plain, *(f"{key}-{_in_name(value)}" for key, value in zip(keys, run, strict=True))])
        for run in runs
    ]
    if len({*names}) < len(names) or any(map(name_fault, names)):
        names = [f"{plain}-{index:03d}" for index in range(1, len(runs) + 1)]
    return [
        [word for key, value in zip(keys, run, strict=True) for word in (f"--{key}", value)]
        + ["--output_name", name]
        for run, name in zip(runs, names, strict=True)
    ]


def _in_name(value: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", value)[-40:]


def _unfinished(queue: Queue) -> Iterator[tuple[int, Added]]:
    for entry in queue.entries():
        if entry.state in ("waiting", "running", "stopped"):
            yield entry.number, queue.added(entry.number)


def _result(added: Added) -> tuple[Path, str]:
    return Path(added.output_dir), added.name


def _refuse_what_is_not_kept(run: TrainingRun) -> None:
    problems = Problems()
    for section in sections_in(run).values():
        for name, value in changed_values(section).items():
            if isinstance(value, Secret):
                fix = "log in, or set it in the environment of the runner"
                problems.add(f"--{name}", "is a token, which a queue does not keep", fix)
    if run.training.dry_run:
        problems.add("--dry_run", "trains nothing", "leave it out: runs are checked when they are added")
    problems.raise_if_any()


def _freeze(queue: Queue, script: str, run: TrainingRun, options: AddOptions) -> tuple[int, str]:
    """Write a run's folder and let it wait. Its number and name."""
    number, folder = queue.new_folder()
    tables: dict[str, dict[str, object]] = {}
    for title, section in sections_in(run).items():
        values = tables[title] = {name: _plain(value) for name, value in changed_values(section).items()}
        for name in _FROZEN:
            if isinstance(file := getattr(section, name, None), Path) and file.is_file():
                copy = folder / f"{name}{file.suffix}"
                shutil.copyfile(file, copy)
                values[name] = copy.absolute().as_posix()
    (folder / "options.toml").write_text(to_toml(tables), encoding="utf-8")
    saving = run.saving
    added = Added(
        name=last_name(saving.output_name),
        key=uuid.uuid4().hex,
        script=script,
        cwd=os.fspath(Path.cwd()),
        output_dir=os.fspath(saving.output_dir.absolute()),
        gpus=options.gpus,
        after=list(options.after),
        keeps_states=saving.save_state,
        keeps_last_state=saving.save_state_on_train_end,
        settings=public_options(run),
    )
    queue.write_added(number, added)
    queue.put(number)
    return number, added.name


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return value.as_posix()
    return list(map(_plain, value)) if isinstance(value, tuple) else value
