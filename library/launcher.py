"""What started this program: accelerate launch, torchrun, or neither. A run ends with its launcher.

Launchers pass signals on only while they live, and nothing tells a program that its parent is gone.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

import psutil

Kind = Literal["accelerate launch", "torchrun"]
POLL = 0.5  # seconds between two looks
_MODULES: dict[str, Kind] = {
    "accelerate.commands.launch": "accelerate launch",
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
}
_PROGRAMS: dict[str, Kind] = {"accelerate-launch": "accelerate launch", "torchrun": "torchrun"}


@dataclass(frozen=True)
class Launcher:
    """A launcher that waits for this program.

    kind: which one.
    words: what follows its name on its command line.
    chain: this process, the launcher, and the launcher's own launcher if it has one.
    """

    kind: Kind
    words: tuple[str, ...]
    chain: tuple[psutil.Process, ...]

    @property
    def pid(self) -> int:
        return self.chain[1].pid

    def is_gone(self) -> bool:
        """Whether it, or its own launcher, has ended."""
        return any(not _is_child(child, parent) for child, parent in pairwise(self.chain))


@functools.cache
def find_launcher() -> Launcher | None:
    """The launcher that started this process; None if something else did, such as a shell."""
    chain, found = [psutil.Process()], None
    try:
        while (parent := chain[-1].parent()) is not None:
            words = parent.cmdline()
            if len(chain) == 1 and words[1:] == sys.orig_argv[1:]:  # Windows' python.exe of a virtual
                chain = [parent]  # environment starts the real one
                continue
            read = read_command(words)
            if read is None:
                break
            chain.append(parent)
            found = found or read
    except psutil.Error:  # it ended, or we may not look at it
        pass
    return Launcher(*found, tuple(chain)) if found else None


def read_command(words: Sequence[str]) -> tuple[Kind, tuple[str, ...]] | None:
    """Which launcher a command line starts, and the words for it; None for any other program."""
    for index, word in enumerate(words[:6]):
        rest = tuple(words[index + 1 :])
        if word == "-m":
            return (_MODULES[rest[0]], rest[1:]) if rest and rest[0] in _MODULES else None
        name = PurePath(word.replace("\\", "/")).name.lower().removesuffix(".exe").removesuffix("-script.py")
        if name in _PROGRAMS:
            return _PROGRAMS[name], rest
        if name == "accelerate":
            return ("accelerate launch", rest[1:]) if rest[:1] == ("launch",) else None
        if not (name.startswith(("python", "pypy")) if index == 0 else word.startswith("-")):
            return None  # another program
    return None


def end_with_launcher(tell: Callable[[str], None]) -> None:
    """From here on, this program gets SIGTERM when its launcher has ended. Without a launcher nothing
    happens, so `nohup`, `setsid` and services keep their programs.

    tell: is given a line about it first.
    """
    launcher = find_launcher()
    if launcher is not None:
        threading.Thread(target=_watch, args=(launcher, tell), daemon=True).start()


def _watch(launcher: Launcher, tell: Callable[[str], None]) -> None:
    while not launcher.is_gone():
        time.sleep(POLL)
    tell(f"{launcher.kind} (process {launcher.pid}) has ended, so this run stops too")
    if os.name == "nt":  # where os.kill would end the process at once
        signal.raise_signal(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def _is_child(child: psutil.Process, parent: psutil.Process) -> bool:
    """Whether the parent still runs. One that ended and was not reaped yet has lost its children already; on
    Windows children keep its number.
    """
    try:
        return parent.is_running() and child.ppid() == parent.pid
    except psutil.Error:
        return False
