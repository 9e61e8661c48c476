"""Real trainings in a queue, killed or stopped anywhere: what they learn is what they would have learned."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, call, environment, make_pictures, run_here
from queue_stubs import kill, states, trainers
from trainers import weights

from library.queue.folder import Queue
from tools import run_queue

# Metadata that tells of times and ids.
TIMES = {"ss_training_started_at", "ss_training_finished_at", "ss_session_id", "modelspec.date"}


class Night:
    """A queue of trainings on one model and a few pictures."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.queue, self.model = folder, Queue(folder / "queue"), model
        self.data = make_pictures(folder / "data" / "1_sks cat", 3).parent

    def words(self, out: str, steps: int, *more: object) -> list[object]:
        return [
            *("--pretrained_model_name_or_path", self.model, "--train_data_dir", self.data),
            *("--resolution", 64, "--caption_extension", ".txt", "--network_module", "networks.lora"),
            *("--network_dim", 2, "--learning_rate", 1e-2, "--seed", 3, "--max_data_loader_n_workers", 0),
            *("--max_train_steps", steps, "--output_dir", self.folder / out, *more),
        ]

    def add(self, name: str, steps: int, *more: object) -> None:
        words = self.words("out", steps, "--output_name", name, *more)
        call(run_queue.main, "run_queue.py", "--queue", self.queue.folder, "add", "train_network.py", *words)

    def alone(self, name: str, steps: int, *more: object) -> Path:
        """The same run without a queue."""
        run_here("train_network.py", *self.words("alone", steps, "--output_name", name, *more))
        return self.folder / "alone" / f"{name}.safetensors"

    def start(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "tools/run_queue.py", "--queue", self.queue.folder, "run", *words]
        return subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "witness"), str(ROOT)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def violations(self) -> list[str]:
        """What must never happen, by the witness in each trainer."""
        return [path.read_text() for path in (self.queue.folder / "runs").glob("*/violations")]

    def states_saved(self) -> int:
        return len(list((self.folder / "out").glob("*-state")))

    def result(self, name: str) -> Path:
        return self.folder / "out" / f"{name}.safetensors"


@pytest.fixture
def night(tmp_path: Path, shallow_model_file: Path) -> Night:
    return Night(tmp_path, shallow_model_file)


def test_a_run_goes_on_after_kills_and_a_failed_one_is_set_aside(night: Night) -> None:
    night.add("cat", 30)
    (night.folder / "gone").mkdir()
    night.add("gone", 2, "--train_data_dir", make_pictures(night.folder / "gone" / "1_a", 1).parent)
    for path in (night.folder / "gone" / "1_a").iterdir():
        path.unlink()

    runner = night.start("--state_minutes", 0)
    wait_for(night.states_saved)
    for trainer in trainers(night.queue):  # the runner starts it again
        kill(trainer)
    wait_for(lambda: (night.queue.record(1).tries, bool(trainers(night.queue))) == (2, True))
    kill(runner)
    wait_for(lambda: not trainers(night.queue))  # it notices, saves and ends
    assert states(night.queue) == {1: "running", 2: "waiting"}

    said, _ = night.start("--state_minutes", 0).communicate(timeout=300)
    assert states(night.queue) == {1: "done", 2: "failed"}
    assert "run 1 (cat): started, goes on after step" in said
    assert "run 2: failed: " in said and "no images" in said
    assert weights(night.result("cat")) == weights(night.alone("cat", 30))
    assert facts(night.result("cat")) == facts(night.folder / "alone" / "cat.safetensors")
    assert night.states_saved() == 0 and night.violations() == []
    assert len(list((night.queue.folder / "runs").glob("*/witness"))) == 2


@pytest.mark.long
def test_20_runs_survive_30_kills(night: Night) -> None:
    """10 of the runner, 10 of trainers, 10 of both; some inside a save. 3 of the runs fail by themselves."""
    rng, count, bad = random.Random(0), 20, {4: "gone", 9: "nan", 15: "gone"}
    for number in range(1, count + 1):
        kind, more = bad.get(number), ()
        if kind == "gone":
            more = ("--train_data_dir", make_pictures(night.folder / f"gone{number}" / "1_a", 1).parent)
        elif kind == "nan":
            more = ("--learning_rate", 1e30, "--max_bad_steps", 2)
        night.add(f"x{number}", 12, "--seed", number, *more)
    for path in night.folder.glob("gone*/1_a/*"):
        path.unlink()

    options = ("--state_minutes", 0, "--tries", 20)
    runner, kills = night.start(*options), [whom for whom in ("runner", "trainer", "both") for _ in range(10)]
    rng.shuffle(kills)
    for whom in kills:
        time.sleep(rng.uniform(1, 10))
        if rng.random() < 0.5:  # while steps are taken and states saved
            before, end = night.states_saved(), time.monotonic() + 20
            while time.monotonic() < end and night.states_saved() == before and runner.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
        while not trainers(night.queue) and runner.poll() is None:
            time.sleep(0.01)
        if whom != "trainer":
            kill(runner)
        if whom != "runner":
            for trainer in trainers(night.queue):
                kill(trainer)
        if runner.poll() is not None:
            runner = night.start(*options)
    runner.communicate(timeout=1500)

    assert night.violations() == []
    assert states(night.queue) == {
        number: "failed" if number in bad else "done" for number in range(1, count + 1)
    }
    for number in set(range(1, count + 1)) - set(bad):
        alone = night.alone(f"x{number}", 12, "--seed", number)
        assert weights(night.result(f"x{number}")) == weights(alone)
        assert facts(night.result(f"x{number}")) == facts(alone)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def facts(path: Path) -> dict[str, str]:
    """A file's metadata without times and ids."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: value for key, value in header["__metadata__"].items() if key not in TIMES}
