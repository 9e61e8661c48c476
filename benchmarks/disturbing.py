"""Training runs that a soak stops at random moments: real commands in processes of their own, forked from one
that has imported everything, as importing would take longer than the run. Linux only.
"""

# ruff: noqa: E402
from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
import accelerate.state
import diffusers  # noqa: F401
import numpy as np
import torch
import transformers  # noqa: F401
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import library.training.loop  # noqa: F401
from library.models.weights import load_tensors
from library.problems import run_command
from library.training.position import read_state_info

FORK = multiprocessing.get_context("fork")  # a new Python would take seconds to start


@dataclass(frozen=True)
class Run:
    """A training run that can be started again and again."""

    name: str
    main: Callable[[], None]
    script: str
    words: tuple[str, ...]
    pictures: Path

    def command(self, out: Path, *more: object) -> list[str]:
        return [self.script, *self.words, "--output_dir", str(out), *map(str, more)]


def make_pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    (folder / "1_x").mkdir(parents=True)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
            folder / "1_x" / f"{number}.bmp"
        )
    return folder


class Process:
    """A run under way.

    is_new: in a new Python, as users start it; else forked from this process, which has imported all.
    told: variables of its environment besides, for a forked one.
    """

    def __init__(
        self,
        run: Run,
        out: Path,
        *more: object,
        is_new: bool = False,
        log: str = "log.txt",
        told: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.log = out / log
        words = run.command(out, *more)
        with self.log.open("w") as opened:
            if is_new:
                self._new = subprocess.Popen(
                    [sys.executable, *words], cwd=ROOT, stdout=opened, stderr=opened, stdin=subprocess.DEVNULL
                )
                self.pid = self._new.pid
            else:
                self._forked = FORK.Process(target=_run_here, args=(run.main, words, self.log, told))
                self._forked.start()
                self.pid = self._forked.pid
        self.is_new = is_new

    def is_running(self) -> bool:
        return (self._new.poll() if self.is_new else self._forked.exitcode) is None

    def send(self, number: int) -> bool:
        """Send a signal. Returns False when the process has ended."""
        if not self.is_running():
            return False
        os.kill(self.pid, number)
        return True

    def wait(self, seconds: float) -> int:
        if self.is_new:
            return self._new.wait(seconds)
        self._forked.join(seconds)
        assert self._forked.exitcode is not None, f"still running after {seconds} s\n{self.said()}"
        return self._forked.exitcode

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _run_here(main: Callable[[], None], words: list[str], log: Path, told: Mapping[str, str]) -> None:
    os.environ |= told
    # torch's pool of threads does not survive a fork; one thread makes the new one before many ask for it.
    torch.set_num_threads(torch.get_num_threads())
    with log.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        sys.argv = words
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)  # another run's may be there
        try:
            run_command(main, unfinished="nothing to save")
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def resume_words(out: Path, said: str) -> tuple[object, ...]:
    """The option to resume with: the state that the run named or, after a kill, the latest one."""
    if told := re.search(r"go on with --resume (.+)", said):
        return ("--resume", told[1].strip())
    steps = {path: read_state_info(path).current_step for path in out.glob("x*-state")}
    return ("--resume", max(steps, key=steps.__getitem__)) if steps else ()


def weights(path: Path) -> list[tuple[str, bytes]]:
    return [
        (name, tensor.flatten().view(torch.uint8).numpy().tobytes())
        for name, tensor in sorted(load_tensors(path).items())
    ]
