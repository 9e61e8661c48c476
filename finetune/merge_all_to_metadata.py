"""Put the captions and tags beside pictures into a metadata file, cleaned if you like.

python finetune/merge_all_to_metadata.py my_pictures meta.json --clean_caption
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.metadata_tools import AllFilesOptions, MetadataPlaceOptions
from library.options.parser import parse
from library.preparation.merging import merge_texts
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    place: MetadataPlaceOptions
    files: AllFilesOptions


def main() -> None:
    carry_out(parse(Run, __doc__)).raise_if_any()


def carry_out(run: Run) -> Problems:
    """Do what was asked for. Returns the problems of single pictures."""
    suffixes = {"tags": run.files.tags_extension, "caption": run.files.caption_extension}
    return merge_texts(run.place, suffixes, cleans=run.files.clean_caption)


if __name__ == "__main__":
    run_command(main)
