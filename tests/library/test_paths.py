"""Paths that cannot be one are one line, before anything is opened."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import train_network
from library.options.parser import read_command_line
from library.paths import name_fault, user_path

HOSTILE = {
    "caf\udce9": "which is not UTF-8 text",
    "a\0b": "which has a zero byte in it",
    "~nosuchuser/x": "there is no user of this name",
    "x" * 5000: "one that is too long",
    "a/" + "é" * 200: "one that is too long",
    "a/" * 3000: "one that is too long",
}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_cannot_be_a_path_says_why(text: str) -> None:
    with pytest.raises(ValueError, match=HOSTILE[text]) as error:
        user_path(text)
    assert len(str(error.value)) < 200 or "nosuchuser" in text or "caf" in text


@pytest.mark.parametrize(
    "option", ["train_data_dir", "output_dir", "resume", "network_weights", "config_file"]
)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_every_option_that_takes_a_path_checks_it(option: str, text: str) -> None:
    started = time.thread_time()
    found = [str(one) for one in read_command_line(train_network.Run, argv=[f"--{option}", text]).problems]
    (line,) = [line for line in found if line.startswith(f"--{option}: expects a path")]
    assert HOSTILE[text] in line and "\n" not in line
    assert time.thread_time() - started < 1


@pytest.mark.parametrize("text", ["a/b c", "~", "ü/ß.png", "C:\\x\\y", "x" * 255, "."])
def test_other_paths_are_taken_as_they_are(text: str) -> None:
    assert user_path(text) == Path(text).expanduser()


@pytest.mark.parametrize(
    "name", ["COM¹", "com³.txt", "CONIN$", "conout$", "LPT0", "nul.x", "caf\udce9", "a\nb", "x" * 181]
)
def test_names_that_some_system_does_not_take(name: str) -> None:
    assert name_fault(name)


@pytest.mark.parametrize("name", ["COM", "comet1", "conin", "lpt", "a¹", "last"])
def test_names_that_every_system_takes(name: str) -> None:
    assert name_fault(name) is None
