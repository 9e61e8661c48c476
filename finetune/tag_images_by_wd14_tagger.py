"""Write the tags of pictures beside them, as a tagger sees them.

python finetune/tag_images_by_wd14_tagger.py my_pictures --batch_size 4
python finetune/tag_images_by_wd14_tagger.py my_pictures --repo_id SmilingWolf/wd-swinv2-tagger-v3
    --remove_underscore --character_threshold 0.85 --undesired_tags "simple background"
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.caption_tools import TagTextOptions
from library.options.parser import parse
from library.options.tagging_tools import TagChoiceOptions, TaggerOptions, TagOutputOptions
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    texts: TagTextOptions
    tagger: TaggerOptions
    choice: TagChoiceOptions
    output: TagOutputOptions


def main() -> None:
    carry_out(parse(Run, __doc__)).raise_if_any()


def carry_out(run: Run) -> Problems:
    """Do what was asked for. Returns the problems of single pictures."""
    from library.preparation.tagging.command import tag_pictures

    return tag_pictures(run.texts, run.tagger, run.choice, run.output)


if __name__ == "__main__":
    run_command(main)
