"""A command's side of a queue: its lock, its end, and the outcome file that it leaves."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import ROOT

from library import byte_locks, queued
from library.queued import OUTCOME, STOP, QueuedRun, end_file


def make(folder: Path, attempt: int = 2) -> QueuedRun:
    (folder / "run").mkdir(exist_ok=True)
    return QueuedRun(folder / "run", "key", attempt, folder / "runner", 15.0)


def outcome(run: QueuedRun, code: int) -> dict[str, object]:
    """What it leaves; in a thread, for in the main one it would turn signals off."""
    thread = threading.Thread(target=run.conclude, args=(code,))
    thread.start()
    thread.join()
    found = json.loads((run.folder / OUTCOME).read_text())
    assert found.pop("time") > 0
    return found


def test_the_outcome_says_how_a_run_ended(tmp_path: Path) -> None:
    for code, kind in ((0, "done"), (2, "wrong"), (70, "broken"), (1, "broken"), (143, "stopped")):
        found = outcome(make(tmp_path), code)
        assert found == {"kind": kind, "code": code, "try": 2, "reasons": []}

    run = make(tmp_path)
    run.is_saved = True  # the signal came after the result was there
    assert outcome(run, 143)["kind"] == "done"

    run = make(tmp_path)
    error = RuntimeError("cannot save")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    run.note(["x" * 9000] * 9, error)
    found = outcome(run, 2)
    assert found["kind"] == "full"
    assert len(json.dumps(found)) < queued._KEPT_BYTES


def test_the_outcome_takes_room_that_was_kept_for_it(tmp_path: Path) -> None:
    run = make(tmp_path)
    kept = run.folder / ".outcome.kept"
    kept.write_bytes(b" " * 4096)
    place = kept.stat().st_ino
    outcome(run, 0)
    assert (run.folder / OUTCOME).stat().st_ino == place and not kept.exists()


COMMAND = """
import sys, time
from library.problems import run_command
def main():
    print("begun", flush=True)
    time.sleep(60)
run_command(main)
"""


def start(run: QueuedRun) -> subprocess.Popen[str]:
    """A command that does nothing for a minute."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        cwd=ROOT,
        env=os.environ | run.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_command_ends_with_its_runner_when_asked_and_when_it_comes_second(tmp_path: Path) -> None:
    run = make(tmp_path)
    runner = byte_locks.hold(run.runner)
    assert runner is not None

    asked = start(run)
    assert asked.stdout is not None and asked.stdout.readline() == "begun\n"
    assert byte_locks.is_held(run.folder / queued.LOCK)
    (run.folder / STOP).touch()
    _, said = asked.communicate(timeout=30)
    assert asked.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[0] == "warning: the queue asks this run to stop"
    (run.folder / STOP).unlink()

    end_file(run.runner).touch()
    assert start(run).wait(timeout=30) == 143  # before it has begun
    end_file(run.runner).unlink()

    left = start(run)
    assert left.stdout is not None and left.stdout.readline() == "begun\n"
    second = start(
        run
    )  # a late one, of the runner before: it waits for the lock, and is never a second trainer
    time.sleep(0.5)
    os.close(runner)
    _, said = left.communicate(timeout=30)
    assert said.splitlines()[0] == "warning: the queue's runner has ended, so this run stops too"
    told, said = second.communicate(timeout=30)
    assert second.returncode == 143 and "begun" not in told
    assert json.loads((run.folder / OUTCOME).read_text())["kind"] == "stopped"


@pytest.mark.skipif(os.name == "nt", reason="fcntl")
def test_a_run_that_cannot_be_locked_is_a_problem(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.folder / queued.LOCK).mkdir()
    left = start(run)
    _, said = left.communicate(timeout=30)
    assert left.returncode == 2
    assert f"{run.folder}: cannot be locked or written to (Is a directory)" in said
    assert json.loads((run.folder / OUTCOME).read_text())["kind"] == "wrong"
