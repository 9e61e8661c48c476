"""The runner of a queue: starts a process for each run, and decides by its outcome file what becomes of it.

Whoever holds the lock on a runner's file is that runner; one that is gone leaves its runs to the others, which
wait until its trainers, who notice, have saved and ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from library import byte_locks, queued
from library.console import say
from library.options.queue_tools import RunnerOptions
from library.problems import UserError
from library.queue.deciding import INSTANT, Verdict, judge, settle
from library.queue.folder import Entry, Queue
from library.queue.states import newest_state
from library.training.interruption import Interruption

ROOT = Path(__file__).resolve().parents[2]
_POLL = 0.3  # seconds
_MOST_INSTANT = 3  # failures in a row


@dataclass
class _Active:
    """A trainer that runs. slots: numbers of those it uses. log: its open log file."""

    entry: Entry
    process: subprocess.Popen[bytes]
    slots: list[int]
    log: IO[bytes]
    since: float


@dataclass
class Runner:
    """Runs what waits in a queue until nothing does."""

    queue: Queue
    options: RunnerOptions
    devices: list[str]
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _active: dict[int, _Active] = field(default_factory=dict)
    _slots: dict[int, IO[bytes]] = field(default_factory=dict)
    _own: IO[bytes] | None = None
    _instant: int = 0

    @property
    def _file(self) -> Path:
        return self.queue.folder / "runners" / self.name

    def run(self) -> int | None:
        """Returns the exit code when it was asked to stop, else None. Raises UserError when other runners use
        all slots.
        """
        self._own = byte_locks.hold(self._file)
        self._take_slots()
        self.queue.unpause()
        try:
            with Interruption() as interruption:
                while not interruption.requested:
                    self._adopt()
                    self._reap()
                    self._start_what_can()
                    if not self._active and not self._has_more():
                        break
                    time.sleep(_POLL)
                if interruption.requested:
                    self._end()
                    return interruption.exit_code
        finally:
            self._file.unlink(missing_ok=True)
        return None

    def _take_slots(self) -> None:
        for index in range(len(self.devices)):
            path = self.queue.folder / "slots" / str(index)
            if (file := byte_locks.hold(path)) is not None:
                self._slots[index] = file
        if not self._slots:
            fix = "wait for it, or give more --slots"
            raise UserError.of(self.queue.folder, "another runner uses all slots of this queue", fix)

    def _has_more(self) -> bool:
        """Whether something may start later, or a trainer of a runner that is gone has yet to end."""
        entries = self.queue.entries()
        if any(entry.state == "running" and self._is_orphan(entry) for entry in entries):
            return True
        return not self.queue.why_paused() and any(self._can_start(e) for e in self.queue.waiting())

    def _can_start(self, entry: Entry) -> bool:
        """Whether a run's predecessors are done and there are as many slots as it needs, free or not."""
        added = self.queue.added(entry.number)
        states = {other.number: other.state for other in self.queue.entries()}
        is_next = all(states.get(number, "done") == "done" for number in added.after)
        return is_next and added.gpus <= len(self._slots)

    def _is_orphan(self, entry: Entry) -> bool:
        if entry.runner == self.name:  # asking would lose our lock
            return entry.number not in self._active
        return not byte_locks.is_held(self.queue.folder / "runners" / entry.runner)

    def _adopt(self) -> None:
        """Take over the runs of runners that are gone, once their trainers have ended."""
        for entry in self.queue.entries():
            if entry.state != "running" or not self._is_orphan(entry) or self._trainer_lives(entry.number):
                continue
            own = self.queue.move(entry, "running", self.name)
            if own is not None:
                self._settle(own, judge(self.queue, entry.number, code=None, tries=self.options.tries))

    def _trainer_lives(self, number: int) -> bool:
        path = self.queue.run_folder(number) / queued.LOCK
        return byte_locks.is_held(path, count=queued.MOST_PROCESSES)

    def _reap(self) -> None:
        for number, active in list(self._active.items()):
            code = active.process.poll()
            if code is None or self._trainer_lives(number):
                continue
            del self._active[number]
            active.log.close()
            verdict = judge(self.queue, number, code=code, tries=self.options.tries)
            is_instant = verdict.state == "failed" and time.monotonic() - active.since < INSTANT
            self._instant = self._instant + 1 if is_instant else 0
            self._settle(active.entry, verdict)
            if self._instant == _MOST_INSTANT:
                self.queue.pause(f"{_MOST_INSTANT} runs in a row failed at once, the last: {verdict.reason}")
                say("paused: " + self.queue.why_paused())

    def _settle(self, entry: Entry, verdict: Verdict) -> None:
        settle(self.queue, entry, verdict)
        what = "will go on" if verdict.state == "waiting" else verdict.state
        say(f"run {entry.number}: {what}" + (f": {verdict.reason}" if verdict.reason else ""))

    def _start_what_can(self) -> None:
        if self.queue.why_paused():
            return
        used = {slot for active in self._active.values() for slot in active.slots}
        free = [slot for slot in self._slots if slot not in used]
        for entry in self.queue.waiting():
            if not free:
                return
            if not self._can_start(entry):
                continue
            count = self.queue.added(entry.number).gpus
            if count > len(free):  # what waits behind it must not keep it from its slots for ever
                return
            own = self.queue.move(entry, "running", self.name)
            if own is not None:
                self._start(own, free[:count])
                free = free[count:]

    def _start(self, entry: Entry, slots: list[int]) -> None:
        queue, number = self.queue, entry.number
        folder, added = queue.run_folder(number), queue.added(number)
        for name in (queued.OUTCOME, queued.END):
            (folder / name).unlink(missing_ok=True)
        tries = queue.read(number, "tries.json")
        attempt = tries.get("tries", 0) + 1
        queued.write_json(folder / "tries.json", tries | {"tries": attempt, "started": time.time()})
        words = [str(ROOT / added.script), "--config_file", str(folder / "options.toml")]
        state = newest_state(added)
        if state is not None:
            words += ["--resume", str(state[0])]
        environment = os.environ | queued.environment_of(
            folder, added.key, attempt, self._file, self.options.state_minutes
        )
        devices = [self.devices[slot] for slot in slots]
        if any(devices):
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        log = (folder / "log.txt").open("ab", buffering=0)
        process = subprocess.Popen(
            [sys.executable, *_launch(added.gpus), *words],
            cwd=added.cwd if Path(added.cwd).is_dir() else None,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the runner, which asks the trainer to end
        )
        self._active[number] = _Active(entry, process, slots, log, time.monotonic())
        goes_on = f", goes on after step {state[1]}" if state else ""
        say(f"run {number} ({added.name}): started{goes_on}")

    def _end(self) -> None:
        """Ask all trainers to save and end, wait for them, and let their runs wait again."""
        say(f"stopping: {len(self._active)} trainers save and end")
        for number in self._active:
            (self.queue.run_folder(number) / queued.END).write_text("runner", encoding="utf-8")
        while self._active:
            for number, active in list(self._active.items()):
                if active.process.poll() is not None and not self._trainer_lives(number):
                    del self._active[number]
                    active.log.close()
                    (self.queue.run_folder(number) / queued.END).unlink(missing_ok=True)
                    self._settle(active.entry, judge(self.queue, number, code=None, tries=self.options.tries))
            time.sleep(_POLL)


def _launch(gpus: int) -> list[str]:
    if gpus == 1:
        return []
    many = ["--multi_gpu", f"--num_processes={gpus}", "--num_machines=1", "--main_process_port=0"]
    return ["-m", "accelerate.commands.launch", *many, "--mixed_precision=no", "--dynamo_backend=no"]


def devices_of(slots: int | None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for each slot; empty texts without GPUs."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    import torch

    count = torch.cuda.device_count()
    names = [name.strip() for name in asked.split(",")] if asked else list(map(str, range(count)))
    names = names[:count] or [""] * (slots or 1)
    if slots is not None and slots > len(names):
        raise UserError.of(
            "--slots", f"is {slots}, but there are {len(names)} GPUs", "give as many as there are"
        )
    return names if slots is None else names[:slots]
