"""A queue's folder: which runs there are, in which state, and what is known of each.

waiting/0003   running/0003@<runner>   done/0003   failed/0003   stopped/0003
                  empty files: a run's state is the folder that its file is in, changed by an atomic rename
runs/0003/        run.json, options.toml and copies of the files that these name, log.txt, tries.json, reason,
                  trainer.lock, outcome.json, end
runners/<runner>  locked by a runner as long as it lives     slots/0   locked by the runner that uses the slot
paused            why nothing new is started                 order.json   runs that `move` has put first
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from library.files import whole_file
from library.problems import UserError
from library.queued import write_json

State = Literal["waiting", "running", "done", "failed", "stopped"]
STATES: tuple[State, ...] = get_args(State)
_FOLDERS = (*STATES, "runs", "runners", "slots")


@dataclass(frozen=True)
class Added:
    """What a run was when it was added; run.json.

    name: the results' name.
    key: the run's id, which its states carry.
    script: the trainer.
    cwd: the folder that relative paths are meant from.
    output_dir: absolute.
    gpus: how many it trains on.
    after: numbers of runs that have to be done before.
    keeps_states, keeps_last_state: whether the user asked for states, or for the last one.
    settings: its options as messages and pages show them.
    """

    name: str
    key: str
    script: str
    cwd: str
    output_dir: str
    gpus: int = 1
    after: list[int] = field(default_factory=list)
    keeps_states: bool = False
    keeps_last_state: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


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
            raise UserError.of(self.folder, f"cannot be made ({error.strerror})", "choose another") from None

    def require(self) -> None:
        """Raises UserError unless it is a queue."""
        if not (self.folder / "runs").is_dir():
            fix = "begin one with: run_queue.py --queue FOLDER add ..."
            raise UserError.of(self.folder, "is no queue", fix)

    def entries(self) -> list[Entry]:
        """All runs by number. One that is renamed just now is found in one of its places."""
        found: dict[int, Entry] = {}
        for state in STATES:  # in the order that runs go through them
            for path in (self.folder / state).iterdir():
                number, _, runner = path.name.partition("@")
                if number.isdecimal():
                    found[int(number)] = Entry(int(number), state, runner)
        return [found[number] for number in sorted(found)]

    def waiting(self) -> list[Entry]:
        """The runs that wait, in the order in which they will be started."""
        with suppress(OSError, ValueError):
            first = json.loads((self.folder / "order.json").read_text(encoding="utf-8"))["first"]
            place = {number: index for index, number in enumerate(first)}
            waiting = [entry for entry in self.entries() if entry.state == "waiting"]
            return sorted(waiting, key=lambda entry: (place.get(entry.number, len(place)), entry.number))
        return [entry for entry in self.entries() if entry.state == "waiting"]

    def find(self, number: int) -> Entry:
        """Raises UserError when there is no such run."""
        for entry in self.entries():
            if entry.number == number:
                return entry
        raise UserError.of(f"run {number}", "is not in this queue", "see: list")

    def move(self, entry: Entry, state: State, runner: str = "") -> Entry | None:
        """Give a run another state; None if another process was faster."""
        new = Entry(entry.number, state, runner)
        try:
            self._path(entry).rename(self._path(new))
        except FileNotFoundError:
            return None
        return new

    def put(self, number: int) -> None:
        """Let a run that is whole wait."""
        with whole_file(self._path(Entry(number, "waiting"))) as temporary:
            temporary.touch()

    def discard(self, entry: Entry) -> None:
        """Take a run off the lists; its folder stays for its log until it is removed."""
        self._path(entry).unlink(missing_ok=True)

    def _path(self, entry: Entry) -> Path:
        return self.folder / entry.state / entry.file_name

    def run_folder(self, number: int) -> Path:
        return self.folder / "runs" / f"{number:04d}"

    def new_folder(self) -> tuple[int, Path]:
        """The number and the folder of a new run; no other process gets the same."""
        names = [int(path.name) for path in (self.folder / "runs").iterdir() if path.name.isdecimal()]
        number = max(names, default=0) + 1
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
            return Added(**{field.name: found[field.name] for field in fields(Added)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError.of(
                path, f"cannot be read ({error})", f"remove run {number} and add it anew"
            ) from None

    def write_added(self, number: int, added: Added) -> None:
        write_json(self.run_folder(number) / "run.json", asdict(added))

    def read(self, number: int, name: str) -> dict[str, Any]:
        """A JSON file of a run; empty if there is none."""
        with suppress(OSError, ValueError):
            found = json.loads((self.run_folder(number) / name).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    @property
    def pause_file(self) -> Path:
        return self.folder / "paused"

    def pause(self, why: str) -> None:
        """Start nothing new until `unpause`; what runs goes on."""
        write_json(self.pause_file, {"why": why})

    def unpause(self) -> None:
        self.pause_file.unlink(missing_ok=True)

    def why_paused(self) -> str:
        """Empty if it is not."""
        try:
            return str(json.loads(self.pause_file.read_text(encoding="utf-8"))["why"])
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError):
            return "paused"
