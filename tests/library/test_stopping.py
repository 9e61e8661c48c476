"""Signals to a command. Each is a process of its own, which sends them to itself."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODE = """
import os, signal, sys, time
from library import stopping
from library.problems import run_command
stopping.GRACE = 0.5
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
def main():
    {body}
run_command(main, unfinished={unfinished!r})
"""
HANG_UP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # Windows has none
NUMBERS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, *HANG_UP])


def run(body: str, unfinished: str = "") -> subprocess.CompletedProcess[str]:
    code = CODE.format(body="\n    ".join(body.strip().splitlines()), unfinished=unfinished)
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )


@NUMBERS
def test_a_signal_ends_a_command_with_one_line_and_the_shells_code(number: int) -> None:
    done = run(f"signal.raise_signal({int(number)})\ntime.sleep(9)", "nothing to save")
    assert (done.returncode, done.stderr) == (128 + number, "\nstopped: nothing to save\n")
    assert run(f"signal.raise_signal({int(number)})").stderr == "\nstopped\n"


def test_what_was_kept_is_said_instead() -> None:
    body = """
try:
    signal.raise_signal(signal.SIGTERM)
except stopping.Stopped as stop:
    stop.kept = "half of it"
    raise
"""
    assert run(body, "nothing to save").stderr == "\nstopped: half of it\n"


@NUMBERS
def test_a_command_that_works_on_ends_all_the_same(number: int) -> None:
    body = f"""
try:
    signal.raise_signal({int(number)})
except BaseException:
    pass
time.sleep(30)
"""
    start = time.perf_counter()
    done = run(body)
    assert (done.returncode, done.stderr) == (128 + number, "\nstopped\n")
    assert time.perf_counter() - start < 20


def test_a_second_signal_ends_it_at_once() -> None:
    body = """
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    signal.raise_signal(signal.SIGTERM)
print("not here")
"""
    done = run(body)
    assert (done.returncode, done.stdout) == (143, "")


@pytest.mark.skipif(not HANG_UP, reason="Windows has no SIGHUP")
def test_a_terminal_that_hangs_up_twice_stops_once() -> None:
    body = """
try:
    signal.raise_signal(signal.SIGHUP)
except BaseException:
    signal.raise_signal(signal.SIGHUP)
    print("saved")
"""
    done = run(body)
    assert (done.returncode, done.stdout) == (0, "saved\n")


@pytest.mark.skipif(not HANG_UP, reason="Windows has no SIGHUP")
def test_nohup_works_on() -> None:
    body = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with stopping.signals_stop():
    signal.raise_signal(signal.SIGHUP)
print("saved")
"""
    assert run(body).stdout == "saved\n"
