"""How a run's trainer is started: on which devices, with which command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from library.problems import UserError
from library.queue.folder import Added
from library.queued import QueuedRun

ROOT = Path(__file__).resolve().parents[2]


def slots_of(asked: int | None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for each slot; empty texts on the CPU, one unless more are asked for."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = 0 if given in ("", "-1") else _count_gpus()
    if not count:
        return [""] * (asked or 1)
    names = [name.strip() for name in given.split(",")] if given else list(map(str, range(count)))
    if asked is not None and asked > count:
        there = f"there {'is' if count == 1 else 'are'} {count} here"
        raise UserError.of("--slots", f"is {asked}, a GPU each, but {there}", "ask for fewer")
    return names[:count]


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def start(
    added: Added, run: QueuedRun, devices: Sequence[str], state: Path | None, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a trainer, in a session of its own: Ctrl-C is for the runner, which asks the trainer to end.

    state: to go on from.
    Raises OSError if it cannot be started.
    """
    words = [str(ROOT / added.script), "--config_file", str(run.folder / "options.toml")]
    if state is not None:
        words += ["--resume", str(state)]
    environment = os.environ | run.environment
    if any(devices):
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    return subprocess.Popen(
        [sys.executable, *_launcher(added), *words],
        cwd=added.cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
    )


def _launcher(added: Added) -> list[str]:
    """accelerate launch with the words that the run was added with; where several processes train, also
    without them.
    """
    if added.launch is None and added.processes == 1:
        return []
    own = [f"--num_processes={added.processes}", "--num_machines=1", "--mixed_precision=no"]
    words = [*own, "--dynamo_backend=no"] if added.launch is None else list(added.launch)
    if added.launch is None and added.processes > 1:
        words.append("--multi_gpu")
    if not any(word.startswith("--main_process_port") for word in words):
        words.append("--main_process_port=0")  # a free one: slots run side by side
    return ["-m", "accelerate.commands.launch", *words]
