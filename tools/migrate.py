"""Read another program's settings and write them as Atelier's: an option file, and the command that uses it.

python tools/migrate.py my_lora.json
python tools/migrate.py train.ps1 --output my_lora.toml
python tools/migrate.py "accelerate launch train_network.py --network_module networks.lora ..."

Reads commands of sd-scripts (bash, PowerShell, batch files, notebooks, files of containers) with their config
files, kohya_ss (JSON, TOML), lora-scripts, LoRA_Easy_Training_Scripts, OneTrainer and ai-toolkit. Nothing is
run, and no file is replaced.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library import console
from library.migration.commands import TRAINERS
from library.migration.fitting import fit
from library.migration.found import Found
from library.migration.reading import read_source
from library.migration.writing import command_of, write_files
from library.options.fields import option, refuse
from library.options.parser import Reading, parse, read_command_line
from library.problems import Problem, Problems, run_command
from library.secrets import Secret, hide_tokens


@dataclass(frozen=True)
class MigrationOptions:
    """Settings of other programs."""

    source: str = option(
        None, "a file, or a command in quotation marks", positional=True, metavar="file_or_command"
    )
    output: Path | None = option(
        None, "option file to write (default: beside the source, as <name>-atelier.toml)", metavar="FILE"
    )

    def __post_init__(self) -> None:
        refuse((not self.source, "<file_or_command>", "is needed: what to read"))


@dataclass(frozen=True)
class Run:
    migration: MigrationOptions


def main() -> None:
    options = parse(Run, __doc__).migration
    found, path = read_source(options.source)
    output = options.output or (path.with_name(f"{path.stem}-atelier.toml") if path else Path("atelier.toml"))
    output = output if output.suffix.lower() == ".toml" else output.with_name(output.name + ".toml")
    runs = {name: importlib.import_module(name.removesuffix(".py")).Run for name in TRAINERS}
    tables = fit(found, runs[found.trainer], runs.values())
    written = write_files(output, found, tables)
    problems = _problems_of(runs[found.trainer], output)
    for line in report(found, written, [str(problem) for problem in problems]):
        console.say(line)


def _problems_of(run_type: type, option_file: Path) -> list[Problem]:
    """What the trainer would refuse in the file."""
    reading: Reading[object] = read_command_line(run_type, argv=["--config_file", str(option_file)])
    problems = Problems(reading.problems)
    if not reading.problems:
        problems.attempt(lambda: reading.run)
    return problems.found


def report(found: Found, written: list[Path], problems: list[str]) -> Iterator[str]:
    """What was found and what becomes of it, line by line, without tokens and passwords."""
    lines = [f"settings of {found.program}, for {found.trainer}"]
    if found.idle:
        have = "settings have" if len(found.idle) > 1 else "setting has"
        lines.append(f"{len(found.idle)} {have} no effect here: {', '.join(found.idle)}")
    lines += [f"changed: {line}" for line in found.changes]
    lines += [f"not carried over: {line}" for line in found.missing]
    lines += [f"to mend: {line}" for line in problems]
    lines += [f"wrote {', '.join(map(str, written))}; run", f"  {command_of(found, written[0])}"]
    for line in dict.fromkeys(lines):
        yield hide_tokens(line, *map(Secret, found.secrets))


if __name__ == "__main__":
    run_command(main)
