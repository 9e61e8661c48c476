"""Write a caption beside every picture, as GIT sees it.

python finetune/make_captions_by_git.py my_pictures --remove_words
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.caption_tools import CaptionTextOptions
from library.options.captioning_tools import CaptionMachineOptions, CaptionWordOptions, GitOptions
from library.options.parser import parse
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    texts: CaptionTextOptions
    captioner: GitOptions
    words: CaptionWordOptions
    machine: CaptionMachineOptions


def main() -> None:
    carry_out(parse(Run, __doc__)).raise_if_any()


def carry_out(run: Run) -> Problems:
    """Do what was asked for. Returns the problems of single pictures."""
    from library.preparation.captioning.command import caption_pictures
    from library.preparation.captioning.decoding import Decoding

    return caption_pictures(
        run.texts,
        run.words,
        run.machine,
        model=run.captioner.model_id,
        prompt=None,
        decoding=Decoding(longest=run.captioner.max_length),
    )


if __name__ == "__main__":
    run_command(main)
