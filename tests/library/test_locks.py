"""Two processes that would write files of one name."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from library import locks
from library.locks import output_lock
from library.problems import UserError

ROOT = Path(__file__).parents[2]
HOLDER = """
import os, sys, time
from pathlib import Path
from library.locks import output_lock
with output_lock(Path(sys.argv[1]), "x"):
    if sys.argv[2] == "forks" and os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, how: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which has the lock."""
    command = [sys.executable, "-c", HOLDER, str(folder), how]
    other = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=how == "forks"
    )
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline().strip() == b"held"
    try:
        yield other
    finally:
        other.stdin.close()
        other.stdout.close()
        other.kill()
        other.wait()


def test_the_second_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        with pytest.raises(UserError) as refused, output_lock(tmp_path, "x"):
            pass
        cause = f"another run (process {other.pid}) is writing files of this name"
        fix = "wait until it has ended, or choose another --output_name"
        assert str(refused.value) == f"{tmp_path / 'x'}: {cause}; {fix}"
        with output_lock(tmp_path, "y"):
            assert (tmp_path / ".y.lock").is_file()
        other.communicate(b"")
        assert list(tmp_path.iterdir()) == []
    with output_lock(tmp_path, "x"):
        pass


@pytest.mark.parametrize("how", ["", *(["forks"] if hasattr(os, "fork") else [])])
def test_a_killed_process_leaves_no_lock_nor_do_its_workers(how: str, tmp_path: Path) -> None:
    with holder(tmp_path, how) as other:
        other.kill()
        other.wait()
        assert (tmp_path / ".x.lock").is_file()
        with output_lock(tmp_path, "x"):
            pass
    assert list(tmp_path.iterdir()) == []
    if how:
        os.killpg(other.pid, signal.SIGKILL)


def test_a_drive_without_locks_and_a_file_that_cannot_be_made_do_not_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with output_lock(tmp_path / "missing", "x"):
        pass
    (tmp_path / ".y.lock").mkdir()
    with output_lock(tmp_path, "y"):
        pass
    monkeypatch.setattr(locks, "lock", fail)
    with output_lock(tmp_path, "x"):
        pass


def test_what_another_program_wrote_into_the_file_is_not_shown(tmp_path: Path) -> None:
    with holder(tmp_path):
        (tmp_path / ".x.lock").write_bytes(b"12 \x1b[2Jhost")
        with pytest.raises(UserError, match="x: another run is writing files"), output_lock(tmp_path, "x"):
            pass
