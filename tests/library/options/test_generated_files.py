"""Files and commands as GUIs, notebooks and wrappers write them start as they are.

The files in tests/data/configs have every key that such a program writes; their folder is the command.
"""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import pytest

from library.options.parser import parse

CONFIGS = Path(__file__).parents[2] / "data" / "configs"
FILES = sorted(CONFIGS.glob("*/*.toml"))
COMMANDS = [
    line.replace("{configs}", CONFIGS.as_posix())
    for line in (CONFIGS / "commands.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_starts_as_it_is(file: Path, capsys: pytest.CaptureFixture) -> None:
    run_type = importlib.import_module(file.parent.name).Run
    run = parse(run_type, argv=["--config_file", str(file)])
    assert run.model.pretrained_model_name_or_path
    lines = capsys.readouterr().err.splitlines()
    assert sum("no effect" in line for line in lines) <= 1
    assert len(lines) <= 2


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_a_command_starts_as_it_is(number: int, capsys: pytest.CaptureFixture) -> None:
    words = shlex.split(COMMANDS[number])
    script = next(index for index, word in enumerate(words) if word.endswith(".py"))
    name = Path(words[script]).stem.replace("train_db_fixed", "train_db")
    parse(importlib.import_module(name).Run, argv=words[script + 1 :])
    lines = capsys.readouterr().err.splitlines()
    assert sum("no effect" in line for line in lines) <= 1
