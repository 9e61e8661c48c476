"""A queue's folder: which runs there are, in which state, and what is known of each.

waiting/0003   running/0003@<runner>   done/0003   failed/0003   stopped/0003   removed/0003
                  empty files: a run's state is the folder that its file is in, changed by an atomic rename
runs/0003/        run.json, options.toml, copies of the files that these name, log.txt, record.json (how it
                  went), and what library/queued.py names
runners/<runner>  locked by a runner as long as it lives     slots/0   locked by the runner that uses the slot
paused            why nothing new is started                 order.json   runs that `move` has put first
queue.html        the page
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from library import byte_locks
from library.paths import name_fault
from library.problems import UserError
from library.queued import LOCK, MOST_PROCESSES, STOP, write_json

State = Literal["waiting", "running", "done", "failed", "stopped"]
STATES: tuple[State, ...] = get_args(State)
_REMOVED = "removed"  # its files stay, so that no number is given twice
_FOLDERS = (*STATES, _REMOVED, "runs", "runners", "slots")
_MOST_LOOKS = 10


@dataclass(frozen=True)
class Added:
    """What a run was when it was added; run.json.

    name: the results' name.
    key: the run's id, which its states carry.
    script: the trainer.
    launch: options of accelerate launch, if the run was added with it.
    processes: how many train together.
    cwd: the folder that relative paths are meant from.
    output_dir: absolute.
    after: numbers of runs that have to be done before.
    keeps_states, keeps_last_state: whether the user asked for states, or for the last one.
    settings: its options as messages and pages show them.
    """

    name: str
    key: str
    script: str
    launch: list[str] | None
    processes: int
    cwd: str
    output_dir: str
    after: list[int] = field(default_factory=list)
    keeps_states: bool = False
    keeps_last_state: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(type(item) is kind for item in value)


# What a field of run.json can be: nothing that stands there may end a runner.
_CAN_BE: dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "key": _is_text,
    "script": lambda value: _is_text(value) and name_fault(value) is None,
    "launch": lambda value: value is None or _is_list_of(str)(value),
    "processes": lambda value: type(value) is int and value > 0,
    "cwd": _is_text,
    "output_dir": _is_text,
    "after": _is_list_of(int),
    "keeps_states": lambda value: type(value) is bool,
    "keeps_last_state": lambda value: type(value) is bool,
    "settings": lambda value: isinstance(value, dict),
}


@dataclass(frozen=True)
class Record:
    """How a run went so far; record.json. Only who has the run in its hands writes it.

    tries: how often it was started.
    started: when, the last time; seconds since 1970.
    deaths: how often it has died since it last got on.
    step: where it stood at the last of these.
    reason: why it is in its state; may be empty.
    """

    tries: int = 0
    started: float = 0.0
    deaths: int = 0
    step: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Entry:
    """A run's place. runner: that runs it; empty unless it is running."""

    number: int
    state: State
    runner: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.number:04d}" + (f"@{self.runner}" if self.runner else "")


@dataclass(frozen=True)
class Queue:
    """A queue's folder, which is absolute."""

    folder: Path

    def make(self) -> None:
        """Make what is missing of it. Raises UserError where nothing can be made."""
        try:
            for name in _FOLDERS:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            cause = f"cannot be made ({error.strerror})"
            raise UserError.of(self.folder, cause, "choose another --queue") from None

    def require(self) -> None:
        """Raises UserError unless it is a queue."""
        if not (self.folder / "runs").is_dir():
            fix = "begin one with: run_queue.py --queue FOLDER add ..."
            raise UserError.of(self.folder, "is no queue", fix)
        self.make()

    def entries(self) -> list[Entry]:
        """All runs by number. Folders are read one after the other while others rename: only two looks that
        agree have missed nothing.
        """
        before = self._look()
        for _ in range(_MOST_LOOKS):
            found = self._look()
            if found == before:
                break
            before = found
        return [before[number] for number in sorted(before)]

    def _look(self) -> dict[int, Entry]:
        found: dict[int, Entry] = {}
        for state in STATES:  # in the order that runs go through them
            for path in (self.folder / state).iterdir():
                number, _, runner = path.name.partition("@")
                if number.isdecimal():
                    found[int(number)] = Entry(int(number), state, runner)
        return found

    def waiting(self) -> list[Entry]:
        """The runs that wait, in the order in which they will be started."""
        waiting = [entry for entry in self.entries() if entry.state == "waiting"]
        first: list[int] = []
        with suppress(OSError, ValueError, LookupError, TypeError):
            first = list(json.loads((self.folder / "order.json").read_text(encoding="utf-8"))["first"])
        place = {number: index for index, number in enumerate(first)}
        return sorted(waiting, key=lambda entry: (place.get(entry.number, len(place)), entry.number))

    def find(self, number: int) -> Entry:
        """Raises UserError when there is no such run."""
        for entry in self.entries():
            if entry.number == number:
                return entry
        cause = "was removed" if self.is_removed(number) else "is not in this queue"
        raise UserError.of(f"run {number}", cause, "see: list")

    def is_removed(self, number: int) -> bool:
        return (self.folder / _REMOVED / f"{number:04d}").exists()

    def move(self, entry: Entry, state: State, runner: str = "") -> Entry | None:
        """Give a run another state; None if another process was faster."""
        new = Entry(entry.number, state, runner)
        try:
            self._path(entry).rename(self._path(new))
        except FileNotFoundError:
            return None
        return new

    def put(self, number: int) -> None:
        """Let a run whose folder is whole wait."""
        self._path(Entry(number, "waiting")).touch()

    def discard(self, entry: Entry) -> bool:
        """Take a run off the lists and remove its folder; False if another process was faster."""
        try:
            self._path(entry).rename(self.folder / _REMOVED / f"{entry.number:04d}")
        except FileNotFoundError:
            return False
        self.remove_folders()
        return True

    def remove_folders(self) -> None:
        """Remove the folders of all runs that were removed, also where that was interrupted."""
        for path in (self.folder / _REMOVED).iterdir():
            shutil.rmtree(self.folder / "runs" / path.name, ignore_errors=True)

    def _path(self, entry: Entry) -> Path:
        return self.folder / entry.state / entry.file_name

    def run_folder(self, number: int) -> Path:
        return self.folder / "runs" / f"{number:04d}"

    def new_folder(self) -> tuple[int, Path]:
        """The number and the folder of a new run; no run has or had the same number."""
        places = (self.folder / name for name in ("runs", _REMOVED))
        names = [path.name for place in places for path in place.iterdir()]
        number = max((int(name) for name in names if name.isdecimal()), default=0) + 1
        while True:
            with suppress(FileExistsError):
                self.run_folder(number).mkdir()
                return number, self.run_folder(number)
            number += 1

    def added(self, number: int) -> Added:
        """Raises UserError when run.json cannot be read."""
        path = self.run_folder(number) / "run.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            values = {field.name: found[field.name] for field in fields(Added)}
            if wrong := [name for name, value in values.items() if not _CAN_BE[name](value)]:
                raise ValueError(f"{wrong[0]} cannot be {str(values[wrong[0]])[:60]!r}")
            return Added(**values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            fix = f"remove run {number} and add it anew"
            raise UserError.of(path, f"cannot be read ({error})", fix) from None

    def known(self, number: int) -> Added:
        """The same for those who only tell of a run: one that cannot be read has the name "?"."""
        try:
            return self.added(number)
        except UserError:
            return Added("?", "", "", None, 1, "", str(self.run_folder(number)))

    def write_added(self, number: int, added: Added) -> None:
        write_json(self.run_folder(number) / "run.json", asdict(added))

    def record(self, number: int) -> Record:
        """A new one if there is none."""
        with suppress(TypeError):
            return Record(**self.read(number, "record.json"))
        return Record()

    def write_record(self, number: int, record: Record) -> None:
        """Raises OSError."""
        write_json(self.run_folder(number) / "record.json", asdict(record))

    def read(self, number: int, name: str) -> dict[str, Any]:
        """A JSON file of a run; empty if there is none."""
        with suppress(OSError, ValueError):
            found = json.loads((self.run_folder(number) / name).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def stop_file(self, number: int) -> Path:
        """There while its user wants a run to stop."""
        return self.run_folder(number) / STOP

    def trainer_lives(self, number: int) -> bool:
        """Whether a process trains a run, whoever started it."""
        return byte_locks.is_held(self.run_folder(number) / LOCK, count=MOST_PROCESSES)

    def runner_file(self, runner: str) -> Path:
        return self.folder / "runners" / runner

    def pause(self, why: str, *, by_user: bool) -> None:
        """Start nothing new until `unpause`; what runs goes on. Raises OSError."""
        write_json(self._pause_file, {"why": why, "by_user": by_user})

    def unpause(self) -> None:
        self._pause_file.unlink(missing_ok=True)

    @property
    def paused(self) -> tuple[str, bool] | None:
        """Why, and whether its user wants it; None if it is not paused."""
        try:
            found = json.loads(self._pause_file.read_text(encoding="utf-8"))
            return str(found["why"]), bool(found["by_user"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return "paused", True

    @property
    def _pause_file(self) -> Path:
        return self.folder / "paused"
