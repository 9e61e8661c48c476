"""Put back the captions, tags or metadata that a command replaced, from the file it kept them in.

python tools/restore_texts.py my_pictures/undo-20261130-204132.jsonl
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.console import say
from library.options.metadata_tools import RestoringOptions
from library.options.parser import parse
from library.preparation.undo import restore
from library.problems import run_command
from library.wording import counted


@dataclass(frozen=True)
class Run:
    restoring: RestoringOptions


def main() -> None:
    options = parse(Run, __doc__).restoring
    done, undo = restore(options.undo_file)
    kept = f"; what they replace is in {undo.path}" if undo.path else ""
    say(f"{counted(done, 'text')} put back into {options.undo_file.parent}{kept}")


if __name__ == "__main__":
    run_command(main)
