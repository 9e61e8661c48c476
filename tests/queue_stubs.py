"""A queue whose trainers cost milliseconds: they count steps, save real states and hold their run's lock, and
write down whatever must never happen.

`python queue_stubs.py FOLDER` is a runner of such a queue, as a process of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from library import queued
from library.files import whole_file, whole_folder
from library.options.queue_tools import RunnerOptions
from library.problems import UserError, run_command
from library.queue import launching
from library.queue.folder import Added, Queue
from library.queue.running import Runner
from library.table_files import read_tables
from library.training.interruption import Interruption
from library.training.position import StateInfo
from library.training.saving.checkpoints import state_name, step_name
from library.training.saving.manifest import write_manifest

HERE = Path(__file__).resolve()


def add_stub(queue: Queue, name: str, **options: object) -> int:
    """Let a stub wait. options: `steps`; `pause`, seconds a step; `ends`, how it fails ("wrong", "broken",
    "full") at step `at`; `after`, numbers of runs.
    """
    queue.make()
    number, folder = queue.new_folder()
    after = list(options.pop("after", ()))
    out = queue.folder / "out"
    out.mkdir(exist_ok=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"name": name, **options}.items()]
    (folder / "options.toml").write_text("\n".join(["[stub]", *lines]))
    added = Added(name, f"key of {name}", HERE.name, None, 1, str(out), str(out), after)
    queue.write_added(number, added)
    queue.put(number)
    return number


def expected(steps: int) -> str:
    """What a stub has learned after some steps."""
    learned = ""
    for step in range(steps):
        learned = hashlib.sha256(f"{learned}{step}".encode()).hexdigest()
    return learned


def start_runner(queue: Queue, **options: object) -> subprocess.Popen[str]:
    """A runner of stubs. options: of RunnerOptions."""
    words = [sys.executable, str(HERE), str(queue.folder), json.dumps(options)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_stubs(queue: Queue, **options: object) -> tuple[int, str]:
    """Run a queue of stubs to its end. Returns the runner's exit code and what it said."""
    runner = start_runner(queue, **options)
    said, _ = runner.communicate(timeout=120)
    return runner.returncode, said


def states(queue: Queue) -> dict[int, str]:
    """The state of each run by number."""
    return {entry.number: entry.state for entry in queue.entries()}


def trainers(queue: Queue) -> list[psutil.Process]:
    """The processes that train runs of a queue."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ() if process.pid != os.getpid() else {}
        except psutil.Error:
            continue
        if str(queue.folder) in environment.get(queued.VARIABLE, ""):
            found.append(process)
    return found


def kill(process: psutil.Process | subprocess.Popen[str]) -> None:
    """SIGKILL; nothing if it has ended."""
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(timeout=30)


def train() -> None:
    """The stub itself: steps that depend on all before, with a state after each."""
    words = sys.argv[1:]
    options = read_tables(Path(words[words.index("--config_file") + 1]))["stub"]
    name, steps, at, out = options["name"], options.get("steps", 3), options.get("at", 0), Path()
    witness = os.open(out / f"{name}.witness", os.O_RDWR | os.O_CREAT)  # open until the process has ended
    try:
        fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        _accuse("is trained by two processes", name)
    run = queued.RUN
    if json.loads(_text(run.folder / queued.OUTCOME) or "{}").get("kind") == "done":
        _accuse("was done and is started again", name)
    with (out / f"{name}.starts").open("a") as starts:
        starts.write(f"started on {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    step, learned = 0, ""
    if "--resume" in words:
        state = Path(words[words.index("--resume") + 1])
        step, learned = json.loads(_text(state / "model.safetensors"))
    with Interruption() as interruption:
        while step < steps:
            if interruption.requested:
                sys.exit(interruption.exit_code)
            if step == at and "ends" in options:
                _end(options["ends"], name)
            time.sleep(options.get("pause", 0.0))
            learned = hashlib.sha256(f"{learned}{step}".encode()).hexdigest()
            step += 1
            _save(out, name, run.key, step, learned)
        with whole_file(out / f"{name}.result") as temporary:
            temporary.write_text(learned)
        queued.tell_of_result()


def _end(how: str, name: str) -> None:
    if how == "wrong":
        raise UserError.of("--learning_rate", f"is wrong in {name}", "lower it")
    if how == "full":
        raise OSError(28, "No space left on device", "somewhere")
    if how == "broken":
        os._exit(1)


def _save(out: Path, name: str, key: str, step: int, learned: str) -> None:
    info = StateInfo(
        current_epoch=1, current_step=step, seed=1, steps_per_epoch=1, optimizer="", data="", run=key
    )
    with whole_folder(out / state_name(step_name(name, step))) as folder:
        told = {field: value for field, value in asdict(info).items() if field != "folder"}
        (folder / "train_state.json").write_text(json.dumps(told))
        (folder / "model.safetensors").write_text(json.dumps([step, learned]))
        (folder / "optimizer.bin").touch()
        write_manifest(folder)


def _accuse(what: str, name: str) -> None:
    with Path("violations").open("a") as file:
        file.write(f"{name} {what}\n")
    sys.exit(1)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _run() -> None:
    launching.ROOT = HERE.parent
    options = RunnerOptions(**json.loads(sys.argv[2]))
    sys.exit(Runner(Queue(Path(sys.argv[1])), options, [""] * (options.slots or 1)).run())


if __name__ == "__main__":
    run_command(train if queued.RUN is not None else _run)
