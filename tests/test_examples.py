"""The example settings are options their commands know, also those that are only remarks."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from library.options.parser import read_command_line

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMANDS = {
    "lora": "train_network",
    "dreambooth": "train_db",
    "finetune": "fine_tune",
    "textual_inversion": "train_textual_inversion",
    "controlnet": "train_control_net",
    "lllite": "train_control_net_lllite",
    "slider": "train_leco",
}


def problems(name: str, config: Path) -> list[str]:
    run_type = importlib.import_module(COMMANDS[name]).Run
    return [
        str(problem) for problem in read_command_line(run_type, argv=["--config_file", str(config)]).problems
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_complete_and_has_no_mistake(name: str) -> None:
    assert problems(name, EXAMPLES / f"{name}_sd15.toml") == []


@pytest.mark.parametrize("name", COMMANDS)
def test_what_an_example_mentions_in_remarks_works_too(name: str, tmp_path: Path) -> None:
    text = (EXAMPLES / f"{name}_sd15.toml").read_text(encoding="utf-8")
    with_all, count = re.subn(r"^# (?=\w+ = |\[\w+\]$)", "", text, flags=re.MULTILINE)
    (tmp_path / "all.toml").write_text(with_all, encoding="utf-8")
    assert count >= 3
    assert problems(name, tmp_path / "all.toml") == []


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("suffix", [".sh", ".ps1"])
def test_a_wrapper_starts_its_command_with_its_settings(name: str, suffix: str) -> None:
    text = (EXAMPLES / f"{name}_sd15{suffix}").read_text(encoding="utf-8")
    started = f"accelerate launch --quiet {COMMANDS[name]}.py --config_file examples/{name}_sd15.toml"
    assert text.count(started) == 1
