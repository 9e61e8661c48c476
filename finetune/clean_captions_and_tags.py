"""Clean the captions and tags in a metadata file.

python finetune/clean_captions_and_tags.py meta_cap_dd.json meta_clean.json
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.metadata_tools import CleaningOptions
from library.options.parser import parse
from library.preparation.cleaning_command import clean_metadata
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    cleaning: CleaningOptions


def main() -> None:
    carry_out(parse(Run, __doc__)).raise_if_any()


def carry_out(run: Run) -> Problems:
    """Do what was asked for. Returns the problems of single pictures."""
    clean_metadata(run.cleaning)
    return Problems()


if __name__ == "__main__":
    run_command(main)
