"""Put the tags beside pictures into a metadata file: those of DeepDanbooru, WD14 taggers or written by hand.

python finetune/merge_dd_tags_to_metadata.py my_pictures --in_json meta_cap.json meta_cap_dd.json
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.metadata_tools import MetadataPlaceOptions, TagFileOptions
from library.options.parser import parse
from library.preparation.merging import merge_texts
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    place: MetadataPlaceOptions
    files: TagFileOptions


def main() -> None:
    carry_out(parse(Run, __doc__)).raise_if_any()


def carry_out(run: Run) -> Problems:
    """Do what was asked for. Returns the problems of single pictures."""
    return merge_texts(run.place, {"tags": run.files.caption_extension})


if __name__ == "__main__":
    run_command(main)
