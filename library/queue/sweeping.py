"""`--sweep`: a run for each combination of values, with a name of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from library.options.fields import OptionSpec, sections_of, specs_of
from library.paths import name_fault
from library.problems import UserError
from library.queue.asking import Command
from library.training.run import TrainingRun
from library.training.saving.checkpoints import last_name

MOST_RUNS = 1000
_LONGEST = 40  # characters of a value in a name
_FIX = 'write "network_dim=8,16;learning_rate=1e-4,2e-4"'

Axes = dict[str, list[str]]


def read_sweep(text: str) -> Axes:
    """Option name -> its values, as users write them; those with commas stand in double quotes. Raises
    UserError for what is no sweep.
    """
    axes: Axes = {}
    for part in _split(text, ";"):
        key, equals, values = part.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        found = [_unquoted(value) for value in _split(values, ",")]
        if not equals or not key or not all(found):
            raise UserError.of("--sweep", f"{part!r} gives no values to an option", _FIX)
        if key in axes:
            raise UserError.of("--sweep", f"{key} is there twice", "give all its values at once")
        if key in ("output_name", "config_file"):
            raise UserError.of("--sweep", f"{key} cannot be varied", "leave it out")
        axes[key] = list(dict.fromkeys(found))
    count = 1
    for found in axes.values():
        count *= len(found)
    if count > MOST_RUNS:
        raise UserError.of("--sweep", f"asks for {count:,} runs", f"ask for {MOST_RUNS:,} at most")
    return axes


def combinations(command: Command, run: TrainingRun, axes: Axes) -> list[Command]:
    """A command for each combination of values. run: what the command asks for by itself."""
    specs = {spec.name: spec for section in sections_of(type(run)).values() for spec in specs_of(section)}
    plain = last_name(run.saving.output_name)
    runs = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    names = ["-".join([plain, *(f"{key}-{_in_name(run[key])}" for key in run)]) for run in runs]
    if len({*names}) < len(names) or any(map(name_fault, names)):
        names = [f"{plain}-{index:03d}" for index in range(1, len(runs) + 1)]
    return [
        replace(command, words=(*command.words, *_words(run, specs), f"--output_name={name}"))
        for run, name in zip(runs, names, strict=True)
    ]


def _words(values: dict[str, str], specs: dict[str, OptionSpec]) -> list[str]:
    words: list[str] = []
    for key, value in values.items():
        spec = specs.get(key)
        if spec is not None and spec.is_list and not value.startswith("-"):
            words += [f"--{key}", *value.split()]
        else:
            words.append(f"--{key}={value}")
    return words


def _split(text: str, separator: str) -> Sequence[str]:
    """Parts of a text, without empty ones; what stands in double quotes is one."""
    quoted = re.findall(rf'(?:"[^"]*"|[^{separator}"]|")+', text)
    return [part.strip() for part in quoted if part.strip()]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _in_name(value: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", value)[-_LONGEST:]
