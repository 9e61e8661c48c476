"""The runner of a queue: starts a process for each run, and decides by its outcome file what becomes of it.

Whoever holds the lock on a runner's file is that runner; one that is gone leaves its runs to the others,
which wait until its trainers, who notice, have saved and ended. Nothing that the queue's folder holds may end
the runner: what cannot be read fails alone, what cannot be written pauses the queue.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from library import byte_locks
from library.console import say
from library.options.queue_tools import RunnerOptions
from library.problems import UserError, warn
from library.queue import launching
from library.queue.deciding import Verdict, judge
from library.queue.folder import Added, Entry, Queue
from library.queue.states import only_newest_state
from library.queued import QueuedRun, end_file
from library.training.interruption import Interruption

INSTANT = 60.0  # seconds; a run that fails sooner may fail for what all have in common
PAUSED = 3  # exit code of a runner that pauses the queue
_POLL = 0.3  # seconds
_MOST_INSTANT = 3  # runs in a row
_MOST_FAILURES = 100  # looks at the queue in a row that the drive refuses: half a minute


@dataclass
class _Active:
    """A trainer that runs. slots: numbers of those it uses. log: its open log file."""

    entry: Entry
    added: Added
    process: subprocess.Popen[bytes]
    slots: list[int]
    log: IO[bytes]
    since: float


@dataclass
class Runner:
    """Runs what waits in a queue until nothing does.

    devices: what CUDA_VISIBLE_DEVICES is for each slot of the machine.
    changed: called when the list of the runs is another.
    """

    queue: Queue
    options: RunnerOptions
    devices: list[str]
    changed: Callable[[], None] = lambda: None
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _active: dict[int, _Active] = field(default_factory=dict)
    _slots: dict[int, int] = field(default_factory=dict)
    _instant: set[int] = field(default_factory=set)
    _failures: int = 0
    _trouble: str = ""

    @property
    def _file(self) -> Path:
        return self.queue.runner_file(self.name)

    def run(self) -> int:
        """Returns the exit code: 0 when nothing waits any more, PAUSED when it has paused the queue, else the
        signal's. Raises UserError when other runners use all slots, or the drive has no locks.
        """
        try:
            own = byte_locks.hold(self._file, patience=5)
            self._take_slots()
        except OSError as error:
            cause = f"cannot be locked ({error.strerror or error})"
            raise UserError.of(self.queue.folder, cause, "put the queue on another drive") from error
        try:
            self.queue.unpause()
            self._forget_runners()
            with Interruption() as interruption:
                while not interruption.requested and self._goes_on():
                    time.sleep(_POLL)
                if interruption.requested:
                    self._end()
                    return interruption.exit_code
        finally:
            end_file(self._file).unlink(missing_ok=True)
            with suppress(OSError):
                self._file.unlink()
            for held in (own, *self._slots.values()):
                if held is not None:
                    os.close(held)
        return PAUSED if self._trouble else 0

    def _take_slots(self) -> None:
        for index in range(len(self.devices)):
            if len(self._slots) < (self.options.slots or len(self.devices)):
                held = byte_locks.hold(self.queue.folder / "slots" / str(index))
                if held is not None:
                    self._slots[index] = held
        if not self._slots:
            self._file.unlink(missing_ok=True)
            fix = "wait for it, or give more --slots"
            raise UserError.of(self.queue.folder, "another runner uses all slots of this queue", fix)

    def _forget_runners(self) -> None:
        """Remove the files of runners that are gone and have left nothing."""
        needed = {entry.runner for entry in self.queue.entries()} | {self.name}
        for path in (self.queue.folder / "runners").iterdir():
            # Removed under its lock: a runner that has just made its file must not lose it.
            if path.name.partition(".")[0] not in needed and (held := byte_locks.hold(path)) is not None:
                with suppress(OSError):  # on Windows an open file stays
                    path.unlink()
                os.close(held)

    def _goes_on(self) -> bool:
        """Look once at everything; False when nothing is left to do."""
        try:
            self.queue.remove_folders()
            self._reap()
            if self._adopt():
                self._start_what_can()
            self._failures = 0
            return bool(self._active) or self._has_more()
        except OSError as error:  # an entry that could not be renamed is still ours, and adopted next time
            self._failures += 1
            if self._failures == _MOST_FAILURES:  # a network drive may have been away for a moment
                self._pause(f"{self.queue.folder}: {error.strerror or error}")
            return bool(self._active) or self._failures < _MOST_FAILURES

    def _has_more(self) -> bool:
        """Whether something may start later, or a trainer of a runner that is gone has yet to end."""
        if any(self._is_left(entry) for entry in self.queue.entries()):
            return True
        if self._trouble:
            return False
        return any(self._can_start(entry) for entry in self.queue.waiting())

    def _is_left(self, entry: Entry) -> bool:
        """Whether a run has lost its runner, or we could not write what became of it."""
        if entry.state != "running" or entry.runner == self.name:  # asking for our own lock would lose it
            return entry.state == "running" and entry.number not in self._active
        return not byte_locks.is_held(self.queue.runner_file(entry.runner))

    def _can_start(self, entry: Entry) -> bool:
        """Whether a run's predecessors are done and there are as many slots as it needs, free or not."""
        added = self._added(entry)
        return added is not None and self.needs(added) <= len(self._slots) and not self.waits_for(added)

    @property
    def slot_count(self) -> int:
        return len(self._slots)

    def needs(self, added: Added) -> int:
        """How many slots a run takes."""
        return added.processes if any(self.devices) else 1

    def waits_for(self, added: Added) -> list[int]:
        """The predecessors of a run that are not done."""
        done = {entry.number for entry in self.queue.entries() if entry.state == "done"}
        return [number for number in added.after if number not in done and not self.queue.is_removed(number)]

    def _added(self, entry: Entry) -> Added | None:
        """What a run was when it was added. One that cannot be read fails."""
        try:
            return self.queue.added(entry.number)
        except UserError as error:
            record = replace(self.queue.record(entry.number), reason=str(error))
            self._settle(entry, Verdict("failed", record, is_fault=True))
            return None

    def _adopt(self) -> bool:
        """Take over the runs of runners that are gone, once their trainers have ended. False while one has
        not: it still uses a device that we take for free.
        """
        left = [entry for entry in self.queue.entries() if self._is_left(entry)]
        living = [entry for entry in left if self.queue.trainer_lives(entry.number)]
        for entry in left:
            own = None if entry in living else self.queue.move(entry, "running", self.name)
            added = self._added(own) if own is not None else None
            if own is not None and added is not None:
                self._settle(own, judge(self.queue, own.number, added, code=None, tries=self.options.tries))
        return not living

    def _reap(self) -> None:
        for number, active in list(self._active.items()):
            code = active.process.poll()
            if code is None or self.queue.trainer_lives(number):
                continue
            active.log.close()
            verdict = judge(self.queue, number, active.added, code=code, tries=self.options.tries)
            del self._active[number]
            self._settle(active.entry, verdict)
            if not verdict.is_fault or time.monotonic() - active.since > INSTANT:
                self._instant.clear()
                continue
            self._instant.add(number)
            if len(self._instant) == _MOST_INSTANT:
                self._instant.clear()
                reason = f"{_MOST_INSTANT} runs in a row failed at once, the last: {verdict.record.reason}"
                self._pause(reason)

    def _settle(self, entry: Entry, verdict: Verdict) -> None:
        """Write how it went, then rename: a run whose state is read has its reason beside it."""
        record = verdict.record
        try:
            self.queue.write_record(entry.number, record)
        except OSError as error:
            warn(f"run {entry.number}: its record could not be written ({error.strerror or error})")
        self.queue.move(entry, verdict.state)
        what = "will go on" if verdict.state == "waiting" else verdict.state
        say(f"run {entry.number}: {what}" + (f": {record.reason}" if record.reason else ""))
        if verdict.pauses:
            self._pause(f"run {entry.number}: {record.reason}")
        self.changed()

    def _pause(self, why: str) -> None:
        """Start nothing new, also where that cannot be written, and end when what runs has ended."""
        self._trouble = why
        with suppress(OSError):
            self.queue.pause(why, by_user=False)
        say(f"paused: {why}")

    def _start_what_can(self) -> None:
        used = {slot for active in self._active.values() for slot in active.slots}
        free = [slot for slot in self._slots if slot not in used]
        for entry in self.queue.waiting():
            if self.queue.stop_file(entry.number).exists():  # it came while the run was between two tries
                self._stop_waiting(entry)
                continue
            if not free or self._trouble or self.queue.paused is not None:
                return
            if not self._can_start(entry):
                continue
            added = self.queue.added(entry.number)
            count = self.needs(added)
            if count > len(free):  # what waits behind it must not keep it from its slots for ever
                return
            own = self.queue.move(entry, "running", self.name)
            if own is not None and self._start(own, added, free[:count]):
                free = free[count:]

    def _stop_waiting(self, entry: Entry) -> None:
        if self.queue.move(entry, "stopped") is not None:
            say(f"run {entry.number}: stopped")
            self.changed()

    def _start(self, entry: Entry, added: Added, slots: list[int]) -> bool:
        """False if it could not be started."""
        queue, number = self.queue, entry.number
        folder, before = queue.run_folder(number), queue.record(number)
        record = replace(before, tries=before.tries + 1, started=time.time(), reason="")
        run = QueuedRun(folder, added.key, record.tries, self._file, self.options.state_minutes)
        if not Path(added.cwd).is_dir():
            reason = f"{added.cwd}: is gone, from where the run's paths are meant; put it back"
            self._settle(entry, Verdict("failed", replace(record, reason=reason), is_fault=True))
            return False
        state = only_newest_state(added)
        try:
            queue.write_record(number, record)
            log = (folder / "log.txt").open("ab", buffering=0)
            devices = [self.devices[slot] for slot in slots]
            process = launching.start(added, run, devices, state[0] if state else None, log)
        except OSError as error:
            reason = f"could not be started ({error.strerror or error})"
            self._settle(entry, Verdict("waiting", replace(before, reason=reason), pauses=True))
            return False
        self._active[number] = _Active(entry, added, process, slots, log, time.monotonic())
        goes_on = f", goes on after step {state[1]}" if state else ""
        say(f"run {number} ({added.name}): started{goes_on}")
        self.changed()
        return True

    def _end(self) -> None:
        """Ask all trainers to save and end, wait for them, and let their runs wait again."""
        if self._active:
            say("stopping: what runs saves its state first (a second Ctrl-C does not wait for that)")
        try:
            end_file(self._file).touch()
        except OSError:  # without our lock the trainers end too; the next runner sees to their runs
            return
        while self._active:
            for number, active in list(self._active.items()):
                if active.process.poll() is not None and not self.queue.trainer_lives(number):
                    del self._active[number]
                    active.log.close()
                    with suppress(OSError):
                        tries = self.options.tries
                        verdict = judge(self.queue, number, active.added, code=None, tries=tries)
                        self._settle(active.entry, verdict)
            time.sleep(_POLL)
