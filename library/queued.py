"""A command's side of the run queue: which run of a queue this process is, if it is one.

The runner of a queue says it in the environment, in ATELIER_QUEUE. In the run's folder each process locks a
byte of `trainer.lock` until it ends, and looks for `stop`, the user's request to save and end; the last act
of the first process is `outcome.json`, by rename. The runner's own file is locked as long as the runner
lives, and one beside it, `<runner>.end`, asks all its trainers to save and end.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from library import byte_locks

VARIABLE = "ATELIER_QUEUE"
LOCK, OUTCOME, STOP, SUMMARY = "trainer.lock", "outcome.json", "stop", "summary.json"
MOST_PROCESSES = 1024  # of a run on one machine
_KEPT = ".outcome.kept"
_KEPT_BYTES, _MOST_REASONS, _LONGEST_REASON = 4096, 3, 500
_POLL = 0.3  # seconds
_PATIENCE = 60.0  # seconds until the lock has to be ours
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_STOPPED = {129, 130, 143}  # exit codes of signals


@dataclass
class QueuedRun:
    """A run of a queue, as its own process sees it.

    folder: the run's.
    key: its id, which its states carry.
    attempt: which try this is.
    runner: the file that the runner has locked.
    minutes: between two states of a run without --save_state.
    is_saved: whether its result is.
    """

    folder: Path
    key: str
    attempt: int
    runner: Path
    minutes: float
    is_saved: bool = False
    _reasons: list[str] = field(default_factory=list)
    _has_no_room: bool = False
    _lock: int | None = None
    _ending: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """What the runner adds to the trainer's environment."""
        folder, runner = str(self.folder.absolute()), str(self.runner.absolute())
        return {VARIABLE: json.dumps([folder, self.key, self.attempt, runner, self.minutes])}

    @classmethod
    def from_environment(cls) -> QueuedRun | None:
        """None unless a runner has started this process."""
        if VARIABLE not in os.environ:
            return None
        folder, key, attempt, runner, minutes = json.loads(os.environ[VARIABLE])
        return cls(Path(folder), key, attempt, Path(runner), minutes)

    def begin(self, tell: Callable[[str], None]) -> None:
        """Hold the run's lock until this process ends, and from here on send this process SIGTERM when the
        runner is gone, or when it or the user asks for the end. Ends at once if that came first, or another
        process trains this run. Raises OSError where there are no locks, or no room for the outcome.
        """
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        self._lock = byte_locks.hold(self.folder / LOCK, byte=rank, patience=_PATIENCE)
        why = "another process trains this run" if self._lock is None else self._why_end()
        if why:
            tell(why)
            os._exit(128 + signal.SIGTERM)
        if _is_first():  # a disk that is full at the end must not take a run's outcome
            (self.folder / _KEPT).write_bytes(b" " * _KEPT_BYTES)
        threading.Thread(target=self._watch, args=(tell,), daemon=True).start()

    def _why_end(self) -> str:
        """Why this process has to end; empty if it need not."""
        if (self.folder / STOP).exists() or end_file(self.runner).exists():
            return "the queue asks this run to stop"
        is_alone = not byte_locks.is_held(self.runner)
        return "the queue's runner has ended, so this run stops too" if is_alone else ""

    def _watch(self, tell: Callable[[str], None]) -> None:
        while not (why := self._why_end()):
            time.sleep(_POLL)
        with self._ending:  # never while the outcome is written
            tell(why)
            if os.name == "nt":  # where os.kill would end the process at once
                signal.raise_signal(signal.SIGTERM)
            else:
                os.kill(os.getpid(), signal.SIGTERM)

    def note(self, problems: Sequence[object], cause: BaseException) -> None:
        """Remember why the run ends."""
        self._reasons += map(str, problems)
        behind: BaseException | None = cause
        while behind is not None:
            self._has_no_room |= isinstance(behind, OSError) and behind.errno in _NO_ROOM
            behind = behind.__cause__ or behind.__context__

    def conclude(self, code: int) -> None:
        """Write the outcome; nothing in other processes than the first. No signal ends the program any more.

        Raises OSError if that cannot be done.
        """
        self._ending.acquire()  # for good
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                signal.signal(number, signal.SIG_IGN)
        if not _is_first():
            return
        if code == 0 or (code in _STOPPED and self.is_saved):
            kind = "done"
        elif code in _STOPPED:
            kind = "stopped"
        elif self._has_no_room:
            kind = "full"
        else:
            kind = "wrong" if code == 2 else "broken"
        reasons = [reason[:_LONGEST_REASON] for reason in self._reasons[:_MOST_REASONS]]
        told = {"kind": kind, "code": code, "try": self.attempt, "time": time.time(), "reasons": reasons}
        self._publish(json.dumps(told).encode())

    def _publish(self, data: bytes) -> None:
        """Write the outcome into the room that was kept for it."""
        kept = self.folder / _KEPT
        with kept.open("r+b" if kept.exists() else "wb") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        kept.replace(self.folder / OUTCOME)


def end_file(runner: Path) -> Path:
    """The file beside a runner's that asks its trainers to end."""
    return runner.with_name(f"{runner.name}.end")


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a file that appears whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


RUN = QueuedRun.from_environment()


def is_own_state(key: str) -> bool:
    """Whether this is a run of a queue, and the state of a run with that id its own."""
    return RUN is not None and RUN.key == key


def tell_of_result() -> None:
    """The result is saved: a run of a queue is done, whatever signal comes now."""
    if RUN is not None:
        RUN.is_saved = True


@contextmanager
def reported() -> Iterator[None]:
    """Context manager around a whole command: if it is a run of a queue, how it ended is written last."""
    if RUN is None:
        yield
        return
    code = 70
    try:
        yield
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        raise
    finally:
        sys.stdout.flush()
        with suppress(OSError):  # the runner then finds that the run has died
            RUN.conclude(code)
