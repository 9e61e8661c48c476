"""Edit the captions or tags of a whole folder or metadata file: replace, add, remove, sort.

python tools/edit_captions.py my_pictures --replace "smilling=smiling" --remove "*watermark*" --dry_run
python tools/edit_captions.py meta.json --trigger_word "shs girl" --sort frequency --overwrite

--dry_run shows every text before and after. What is replaced is kept: tools/restore_texts.py puts it back.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.editing import EditingOptions
from library.options.parser import parse
from library.preparation.editing_command import edit_captions
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    editing: EditingOptions


def main() -> None:
    edit_captions(parse(Run, __doc__).editing)


if __name__ == "__main__":
    run_command(main)
