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
from library.problems import run_command


@dataclass(frozen=True)
class Run:
    texts: CaptionTextOptions
    captioner: GitOptions
    words: CaptionWordOptions
    machine: CaptionMachineOptions


def main() -> None:
    run = parse(Run, __doc__)
    from library.preparation.captioning.command import caption_pictures
    from library.preparation.captioning.decoding import Decoding

    caption_pictures(
        run.texts,
        run.words,
        run.machine,
        model=run.captioner.model_id,
        prompt=None,
        decoding=Decoding(longest=run.captioner.max_length),
    ).raise_if_any()


if __name__ == "__main__":
    run_command(main)
