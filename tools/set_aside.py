"""Move pictures that are unreadable, tiny, there twice or transparent out of a folder, with their texts.

python tools/set_aside.py my_pictures --min_side 256
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.parser import parse
from library.options.preparation_tools import AsideOptions
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    aside: AsideOptions


def main() -> None:
    carry_out(parse(Run, __doc__)).raise_if_any()


def carry_out(run: Run) -> Problems:
    """Do what was asked for. Returns the problems of single pictures: none, as those are set aside."""
    from library.preparation.aside import set_aside

    set_aside(run.aside)
    return Problems()


if __name__ == "__main__":
    run_command(main)
