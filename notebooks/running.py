"""The project's commands, run by cells as one would type them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from notebooks.failure import CellStopped

_STATE = re.compile(r"(.*): +\d+%\|")  # a state of a progress bar, and whose
_WIDTH = 100  # of such a line


@dataclass(frozen=True)
class Runner:
    """`run("fine_tune.py", "--help")` runs a command in the project's folder and shows what it says.

    project: folder of Atelier.
    python: the Python that has the packages which it needs.
    """

    project: Path
    python: Path

    def __call__(self, script: str, *words: object) -> None:
        """Print the command, run it, and end the cell with CellStopped if it fails. When the cell is stopped,
        the command may save what it has.
        """
        arguments = [script, *map(str, words)]
        print("$ " + as_typed(["python", *arguments]), flush=True)
        code = follow([str(self.python), *arguments], self.project)
        if code < 0 or code in (130, 143):
            raise CellStopped(f"{script} was stopped; the lines above say what it saved.")
        if code:
            raise CellStopped(
                f"{script} ended with exit code {code}, for the reason above. Mend that and run this cell"
                " again; cells below it need what it makes."
            )


def as_typed(words: list[str]) -> str:
    """A command to copy, in lines that break before options."""
    lines = [""]
    for option in re.split(r" (?=--\w)", shlex.join(words)):
        if lines[-1] and len(lines[-1]) + len(option) > _WIDTH - 4:
            lines.append("    " + option)
        else:
            lines[-1] += f" {option}" if lines[-1] else option
    return " \\\n".join(lines)


def follow(command: list[str], folder: Path) -> int:
    """Run a program in a folder and print what it says while it says it; its exit code.

    The states of a progress bar replace one another. The program hears of the cell's stop button by itself,
    as it belongs to the same group of processes; a second stop ends it where it does not.
    """
    started = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
    )
    with started as child:
        try:
            _show(child)
        except KeyboardInterrupt:
            print("\nstopping; it may save its state first. Stop again to end it at once.", flush=True)
            try:
                _show(child)
            except KeyboardInterrupt:
                child.terminate()
        return child.wait()


def _show(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    drawn = ""  # whose state is in the last line
    is_first = True
    for line in child.stdout:
        text = line.rstrip("\n")
        state = _STATE.match(text)
        begin = "\r" if state and state[1] == drawn else "" if is_first else "\n"
        sys.stdout.write(begin + (text.ljust(_WIDTH) if state else text))
        sys.stdout.flush()
        drawn, is_first = state[1] if state else "", False
    if not is_first:
        print(flush=True)
