"""A command's side of the run queue: which run of a queue this process is, if it is one.

The runner of a queue hands these in the environment:

    ATELIER_QUEUE_RUN      the run's folder
    ATELIER_QUEUE_ID       the run's id, which its states carry
    ATELIER_QUEUE_TRY      the number of this try
    ATELIER_QUEUE_RUNNER   the file that the runner holds locked as long as it lives
    ATELIER_QUEUE_MINUTES  how often a run without --save_state saves one

In the run's folder a process locks `trainer.lock` until it ends, one byte for each process of the run; as its
last act the first one writes `outcome.json`, by rename; and each looks for `end`, a file that asks it to save
and end.
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from library import byte_locks

LOCK, OUTCOME, END = "trainer.lock", "outcome.json", "end"
MOST_PROCESSES = 1024  # of a run on one machine
_POLL = 0.3  # seconds
_PATIENCE = 60.0  # seconds until the lock has to be ours
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_STOPPED = {129, 130, 143}  # exit codes of signals


@dataclass
class QueuedRun:
    """A run of a queue, as its own process sees it.

    folder: the run's.
    name: its id.
    attempt: which try this is.
    runner: the file that the runner has locked.
    minutes: between two states of a run without --save_state.
    reasons: problems that ended it, for the outcome.
    """

    folder: Path
    name: str
    attempt: str
    runner: Path
    minutes: float
    reasons: list[str] = field(default_factory=list)
    has_no_room: bool = False
    _lock: IO[bytes] | None = None

    def begin(self, tell: Callable[[str], None]) -> None:
        """Hold the run's lock until this process ends, and from here on send this process SIGTERM when the
        runner is gone or asks for the end. Ends at once if the run is another process' or its runner's end
        came first.
        """
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        try:
            self._lock = byte_locks.hold(self.folder / LOCK, byte=rank, patience=_PATIENCE)
        except OSError as error:
            tell(f"{self.folder}: cannot be locked ({error.strerror})")
        if self._lock is None or self._must_end():
            os._exit(128 + signal.SIGTERM)
        threading.Thread(target=self._watch, args=(tell,), daemon=True).start()

    def _must_end(self) -> str:
        """Why this process has to end; empty if it need not."""
        if (self.folder / END).exists():
            return "the queue asks this run to stop"
        return (
            "" if byte_locks.is_held(self.runner) else "the queue's runner has ended, so this run stops too"
        )

    def _watch(self, tell: Callable[[str], None]) -> None:
        while not (why := self._must_end()):
            time.sleep(_POLL)
        tell(why)
        if os.name == "nt":  # where os.kill would end the process at once
            signal.raise_signal(signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def note(self, problems: Sequence[object], cause: BaseException) -> None:
        """Remember why the run ends."""
        self.reasons += map(str, problems)
        behind: BaseException | None = cause
        while behind is not None:
            self.has_no_room |= isinstance(behind, OSError) and behind.errno in _NO_ROOM
            behind = behind.__cause__ or behind.__context__

    def conclude(self, code: int) -> None:
        """Write the outcome; nothing in other processes than the first."""
        if os.environ.get("RANK", "0") != "0":
            return
        if code == 0:
            kind = "done"
        elif code in _STOPPED:
            kind = "stopped"
        elif self.has_no_room:
            kind = "full"
        else:
            kind = "wrong" if code == 2 else "broken"
        write_json(
            self.folder / OUTCOME,
            {"kind": kind, "code": code, "reasons": self.reasons, "try": self.attempt, "time": time.time()},
        )


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a file that appears whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _from_environment() -> QueuedRun | None:
    folder = os.environ.get("ATELIER_QUEUE_RUN")
    if not folder:
        return None
    return QueuedRun(
        Path(folder),
        os.environ["ATELIER_QUEUE_ID"],
        os.environ["ATELIER_QUEUE_TRY"],
        Path(os.environ["ATELIER_QUEUE_RUNNER"]),
        float(os.environ["ATELIER_QUEUE_MINUTES"]),
    )


def environment_of(folder: Path, name: str, attempt: int, runner: Path, minutes: float) -> dict[str, str]:
    """What the runner adds to a trainer's environment; arguments as the fields of QueuedRun."""
    return {
        "ATELIER_QUEUE_RUN": str(folder.absolute()),
        "ATELIER_QUEUE_ID": name,
        "ATELIER_QUEUE_TRY": str(attempt),
        "ATELIER_QUEUE_RUNNER": str(runner.absolute()),
        "ATELIER_QUEUE_MINUTES": str(minutes),
    }


RUN = _from_environment()


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
        RUN.conclude(code)
