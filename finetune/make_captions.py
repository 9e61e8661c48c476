"""Write a caption beside every picture, as BLIP or another captioner sees it.

python finetune/make_captions.py --batch_size 8 my_pictures
python finetune/make_captions.py my_pictures --model_id florence-community/Florence-2-base
    --prompt "<MORE_DETAILED_CAPTION>"
python finetune/make_captions.py my_pictures --from_names folder
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.options.caption_tools import CaptionTextOptions
from library.options.captioning_tools import BlipOptions, CaptionMachineOptions, CaptionWordOptions
from library.options.parser import parse
from library.problems import Problems, run_command


@dataclass(frozen=True)
class Run:
    texts: CaptionTextOptions
    captioner: BlipOptions
    words: CaptionWordOptions
    machine: CaptionMachineOptions


def main() -> None:
    carry_out(parse(Run, __doc__)).raise_if_any()


def carry_out(run: Run) -> Problems:
    """Do what was asked for. Returns the problems of single pictures."""
    from library.preparation.captioning.command import caption_pictures, captions_from_names
    from library.preparation.captioning.decoding import Decoding

    options = run.captioner
    if options.from_names is not None:
        return captions_from_names(run.texts, run.words, options.from_names)
    return caption_pictures(
        run.texts,
        run.words,
        run.machine,
        model=options.model,
        prompt=options.prompt,
        decoding=Decoding(
            longest=options.max_length,
            shortest=options.min_length,
            beams=options.num_beams,
            top_p=None if options.beam_search else options.top_p,
        ),
        seed=options.seed,
    )


if __name__ == "__main__":
    run_command(main)
