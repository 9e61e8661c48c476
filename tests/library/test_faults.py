"""Exceptions that nothing expected, as their users see them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from library import faults
from library.problems import run_command

ROOT = Path(__file__).parents[2]


def fail_with(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The exit code of a command that raises, and what it prints."""

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    said = capsys.readouterr()
    assert said.out == ""
    return ended.value.code, said.err


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_fault_is_one_line_and_its_details_hold_no_token(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--wandb_api_key", "opensesame"])
    code, said = fail_with(ValueError("not hf_AbCdEfGhIj\nbut more"), capsys)
    [details] = temporary.glob("atelier-fault-*.txt")
    assert code == 70
    line = f"this is a fault of Atelier: ValueError: not ***; details in {details}, for a bug report\n"
    assert said == line
    text = details.read_text()
    assert text.startswith("command: x.py --wandb_api_key ***\nPython ") and "ValueError: not ***\n" in text
    assert "in main" in text and "opensesame" not in text and "hf_Ab" not in text
    if os.name != "nt":
        assert details.stat().st_mode & 0o077 == 0


def test_debugging_shows_the_traceback_and_a_later_process_its_number(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--debug"])
    monkeypatch.setenv("LOCAL_RANK", "1")
    said = fail_with(KeyError("a"), capsys)[1]
    assert "Traceback (most recent call last):" in said
    assert said.splitlines()[-1].startswith(
        "process 1: this is a fault of Atelier: KeyError: 'a'; details in "
    )


def test_details_that_find_no_room_are_not_promised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", no_room)
    said = fail_with(KeyError("a"), capsys)
    assert said == (70, "this is a fault of Atelier: KeyError: 'a'; --debug shows the details\n")


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_that_cannot_say_what_it_is_is_named_by_its_type() -> None:
    assert faults.reason_of(Speechless()) == "Speechless"
    in_worker = (
        "Caught KeyError in DataLoader worker process 0.\nOriginal Traceback:\n  File ...\nKeyError: 'a'"
    )
    assert faults.reason_of(RuntimeError(in_worker)) == "KeyError: 'a'"
    assert len(faults.reason_of(ValueError("x" * 9999))) < 300


OWN_LINES = [
    (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device; make room"),
    (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; change its permissions"),
    (OSError(errno.EROFS, "Read-only file system", "a"), "a: Read-only file system; use another drive"),
    (OSError("in a worker: No space left on device"), "disk: OSError: in a worker: No space left on"),
    (MemoryError(), "memory: there is not enough; close other programs"),
    (RuntimeError("CUDA out of memory."), "device: RuntimeError: CUDA out of memory.; use a smaller"),
    (
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. 10.20 GiB allowed; Of the allocated"),
        "device: RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB. 10.20 GiB allowed; Of the "
        "allocated; use a smaller batch or resolution, --gradient_checkpointing or --mixed_precision bf16 "
        "(--dry_run tells); the rest of the card is left to Windows, as a run that spills into main "
        "memory is "
        "many times slower (--allow_shared_memory lets it)",
    ),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory: RuntimeError: DefaultCPUAlloc"),
    (
        RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "),
        "a process that loads pictures: was",
    ),
    (RuntimeError("[gloo] Connection closed by peer [::1]"), "another process of this run: has ended or"),
    (ConnectionError("timed out"), "network: ConnectionError: timed out; check the connection"),
    (TimeoutError(), "network: TimeoutError; check the connection"),
    (
        ModuleNotFoundError("No module named 'wandb'", name="wandb"),
        "wandb: cannot be imported (ModuleNotFound",
    ),
]


@pytest.mark.parametrize(("error", "line"), OWN_LINES)
def test_what_the_machine_lacks_is_told_as_what_it_is(
    error: Exception, line: str, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = fail_with(error, capsys)
    first, second = said.splitlines()
    assert (code, first) == (2, "1 problem found:") and second.startswith(f"  {line}")
    assert not list(temporary.iterdir())


def test_errors_of_our_own_modules_and_missing_files_are_faults() -> None:
    ours = ModuleNotFoundError("No module named 'library.x'", name="library.x")
    for error in (ours, FileNotFoundError(errno.ENOENT, "No such file", "a"), RuntimeError("shape mismatch")):
        assert faults.explain(error) is None


def test_a_stop_that_a_library_turned_into_an_error_is_a_stop(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("initialization failed", name="torch") from None

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert (ended.value.code, capsys.readouterr().err) == (130, "\nstopped\n")


def test_a_fault_in_a_thread_is_a_warning(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        thread = threading.Thread(target=lambda: {}["a"])
        thread.start()
        thread.join()

    run_command(main)
    said = capsys.readouterr().err
    assert said.startswith("warning: this is a fault of Atelier: KeyError: 'a'; details in ")
    assert said.endswith("for a bug report; the rest goes on\n")


CODE = """
import sys
from library.problems import run_command
def main():
    print("ж", file=sys.stderr)
    raise ValueError("ж")
run_command(main)
"""


def test_streams_that_are_closed_or_cannot_show_a_letter_change_nothing(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONIOENCODING": "cp1252", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=env, capture_output=True, check=False)
    assert done.returncode == 70
    assert done.stderr.decode("cp1252").startswith("?\nthis is a fault of Atelier: ValueError: ?; details in")
    if os.name != "nt":
        command = '"$0" -c "$1" >&- 2>&-'
        done = subprocess.run(
            ["/bin/sh", "-c", command, sys.executable, CODE], cwd=ROOT, env=env, check=False
        )
        assert done.returncode == 70
