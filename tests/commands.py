"""Run Atelier's commands as a user would, on small picture folders made here."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from library import console

ROOT = Path(__file__).parents[1]


def run(
    *words: object, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python <words>` from the project's folder. check: fail the test, with the output, when it exits with
    an error.
    """
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment() | (env or {}))
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


def run_here(script: str, *words: object) -> None:
    """The same in this process, which saves loading torch again. Problems are raised as UserError."""
    call(importlib.import_module(script.removesuffix(".py")).main, script, *words)


def call(main: Callable[[], None], script: str, *words: object) -> None:
    """A command's main function in this process, as if the script of that name were run."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, words)])
        patch.setenv("ACCELERATE_USE_CPU", "true")
        try:
            main()
        finally:
            console.set_up()  # a process has one


def launch(*words: object, processes: int = 1, how: str = "--cpu") -> subprocess.CompletedProcess[str]:
    """`accelerate launch <how> <words>` on the CPU; how: --cpu, --multi_gpu, or "torchrun", to use that."""
    if how == "torchrun":
        many = ("--standalone", f"--nproc_per_node={processes}")
        return run("-m", "torch.distributed.run", *many, *words)
    return run(
        "-m",
        "accelerate.commands.launch",
        how,
        f"--num_processes={processes}",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
        "--num_cpu_threads_per_process=1",
        "--main_process_port=0",  # a free one: tests run side by side
        *words,
    )


def environment() -> dict[str, str]:
    """One thread, so that results do not depend on the machine's load, and no network."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def make_pictures(folder: Path, count: int, *, size: tuple[int, int] = (64, 64), seed: int = 0) -> Path:
    """`count` noisy pictures with tag captions in `folder`, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    for number in range(count):
        picture = Image.frombytes("RGB", (8, 8), rng.randbytes(192)).resize(size, Image.Resampling.BICUBIC)
        picture.save(folder / f"{seed}_{number:02d}.png")
        tags = ["one", "two", "three", f"number {number}"]
        (folder / f"{seed}_{number:02d}.txt").write_text(", ".join(tags), encoding="utf-8")
    return folder


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)
