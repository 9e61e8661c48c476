"""Runs of two processes with --shard, of which one or all are stopped at random moments of steps and saves,
and a full disk: no process may be left waiting, no state be torn, and each run goes on to the same weights.
Linux only; the full disk needs root.

  python benchmarks/soak_sharding.py [signals] [seed]

No launcher ends the processes that are left: each has to notice by itself.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

# First: it imports all that the processes need before they are forked.
from benchmarks.disturbing import Process, Run, make_pictures, resume_words, weights

# ruff: isort: split
import torch
import torch.distributed.fsdp

import train_db
from benchmarks.measuring import say
from benchmarks.soak_training import small_disk
from library.files import remove_leftovers
from library.models.saving import Saving
from library.training.saving.manifest import check_manifest
from tools.make_tiny_model import tiny_model

PROCESSES, STEPS = 2, 6
LIMIT = 60.0  # seconds from a kill to the end of all


def main() -> None:
    words = sys.argv[1:]
    signals, seed = (int(word) for word in (words + ["20", "0"][len(words) :]))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder)
        soak = Soak(run, folder, random.Random(seed))
        soak.stop(signals)
        full = fill_disk(run, folder / "small", soak.expected) if os.geteuid() == 0 else None
    say(
        "soak_sharding",
        signals=dict(soak.sent),
        slowest_end_s=round(soak.slowest, 2),
        runs_with_equal_weights=soak.finished,
        saves_without_room=full,
        seed=seed,
    )


def make_run(folder: Path) -> Run:
    """Full training with a text encoder and averages, saved after each step."""
    model = folder / "model.safetensors"
    tiny_model("sd1", shallow=True).save(model, Saving("safetensors"))
    pictures = make_pictures(folder / "pictures")
    words = f"--pretrained_model_name_or_path {model} --train_data_dir {pictures} --resolution 64 --seed 3"
    words += f" --output_name x --max_train_steps {STEPS} --save_every_n_steps 1 --save_last_n_steps 2"
    words += " --save_state --use_safetensors --use_ema --learning_rate 1e-3 --max_data_loader_n_workers 0"
    return Run("shared", train_db.main, "train_db.py", (*words.split(), "--shard", "full"), pictures)


class Group:
    """The processes of a run."""

    def __init__(self, run: Run, out: Path, *more: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        told |= {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES)}
        self.ranks = [
            Process(run, out, *more, log=f"log{rank}.txt", told=told | {"RANK": rank, "LOCAL_RANK": rank})
            for rank in map(str, range(PROCESSES))
        ]

    def is_running(self) -> bool:
        return any(rank.is_running() for rank in self.ranks)

    def wait(self, seconds: float) -> list[int]:
        """Their exit codes. Raises AssertionError when one of them still runs after that time."""
        end = time.monotonic() + seconds
        return [rank.wait(max(0.0, end - time.monotonic())) for rank in self.ranks]

    def said(self) -> str:
        return "\n".join(rank.said() for rank in self.ranks)


@dataclass
class Soak:
    """Runs that are stopped at random moments and resumed until they finish.

    sent: the signals, and to whom.
    slowest: the most seconds from a signal to the end of all processes.
    finished: how many runs ended with the right weights.
    expected: those weights.
    duration: seconds of the latest run that was not stopped, to draw moments from.
    """

    run: Run
    folder: Path
    rng: random.Random
    sent: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    finished: int = 0
    expected: bytes = b""
    duration: float = 0.0

    def stop(self, times: int) -> None:
        whole, start = self.folder / "whole", time.perf_counter()
        group = Group(self.run, whole)
        assert group.wait(300) == [0] * PROCESSES, group.said()
        self.duration = time.perf_counter() - start
        self.expected = weights(whole / "x.safetensors")
        while self.sent.total() < times:
            out = self.folder / "disturbed"
            self._until_it_finishes(out, times)
            assert weights(out / "x.safetensors") == self.expected, "other weights"
            remove_leftovers(out)
            assert not list(out.glob(".*.part")) and not list(out.glob(".*.old"))
            self.finished += 1
            shutil.rmtree(out)

    def _until_it_finishes(self, out: Path, times: int) -> None:
        """One run, however often it is stopped."""
        resume: tuple[object, ...] = ()
        while True:
            group = Group(self.run, out, *resume)
            if self.sent.total() >= times:
                assert group.wait(300) == [0] * PROCESSES, group.said()
                return
            start = time.perf_counter()
            moment = start + self.rng.uniform(0.1, 1.0) * self.duration
            # Before the first step processes still find each other, and only a launcher ends one that waits.
            while group.is_running() and (time.perf_counter() < moment or "steps:" not in group.said()):
                time.sleep(0.01)
            if not self._send(group):
                assert group.wait(60) == [0] * PROCESSES, group.said()
                self.duration = time.perf_counter() - start
                return
            start = time.perf_counter()
            codes = group.wait(LIMIT)
            self.slowest = max(self.slowest, time.perf_counter() - start)
            print(f"{dict(self.sent)}, exit codes {codes}", file=sys.stderr)
            if codes == [0] * PROCESSES:
                return
            remove_leftovers(out)  # what a run begins with: it puts a folder back whose renaming was cut off
            for state in out.glob("x*-state"):
                check_manifest(state)
            resume = resume_words(out, group.said()) or resume

    def _send(self, group: Group) -> bool:
        """Send a signal to one process or to all. Returns False when all have ended."""
        number = self.rng.choices((signal.SIGKILL, signal.SIGTERM), (3, 1))[0]
        whom = self.rng.choice(("the first", "the second", "all"))
        chosen = {"the first": group.ranks[:1], "the second": group.ranks[1:], "all": group.ranks}[whom]
        is_sent = sum(rank.send(number) for rank in chosen) > 0
        self.sent[f"{number.name} to {whom}"] += is_sent
        return is_sent


def fill_disk(run: Run, folder: Path, expected: bytes) -> int:
    """Fill a run's disk between two of its saves. Returns how many saves found no room."""
    with small_disk(folder, "300m") as small:
        group = Group(run, small)
        first = group.ranks[0]
        while not (small / "x-step00000002-state").exists():
            assert first.is_running(), group.said()
            time.sleep(0.005)
        with suppress(OSError), (small / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        while first.said().count("; training goes on") == 0:
            assert first.is_running(), group.said()
            time.sleep(0.005)
        (small / "filler").unlink()
        assert group.wait(300) == [0] * PROCESSES, group.said()
        assert weights(small / "x.safetensors") == expected
        return group.said().count("; training goes on")


if __name__ == "__main__":
    main()
