"""Captions, tags, metadata and latents for a folder of pictures, in a row; each single command is printed.

python finetune/prepare.py my_pictures --clean --caption blip --tag wd14 --metadata meta.json --clean_metadata
    --buckets --model model.safetensors --batch_size 4
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from finetune import (
    clean_captions_and_tags,
    make_captions,
    make_captions_by_git,
    merge_captions_to_metadata,
    merge_dd_tags_to_metadata,
    prepare_buckets_latents,
    tag_images_by_wd14_tagger,
)
from library.console import say
from library.options.parser import parse
from library.options.preparation_tools import RowOptions
from library.problems import Problems, UserError, run_command
from tools import set_aside

Chapter = tuple[ModuleType, list[str]]  # a command, and the words of its command line


@dataclass(frozen=True)
class Run:
    row: RowOptions


def main() -> None:
    chapters = chapters_of(parse(Run, __doc__).row)
    if not chapters:
        raise UserError.of(
            "prepare.py", "has nothing to do", "ask for --caption, --tag, --metadata or --clean"
        )
    problems = Problems()
    runs = [problems.attempt(parse, module.Run, module.__doc__, words) for module, words in chapters]
    problems.raise_if_any()  # before the first chapter
    for (module, words), run in zip(chapters, runs, strict=True):
        say(f"\npython {_name_of(module)} {shlex.join(words)}")
        problems.found.extend(module.carry_out(run).found)
    problems.raise_if_any()


def chapters_of(options: RowOptions) -> list[Chapter]:
    """The commands that options stand for, in their order."""
    pictures, inner = str(options.train_data_dir), ["--recursive"] if options.recursive else []
    texts = [pictures, *inner, "--batch_size", str(options.batch_size)]
    texts += [] if options.overwrite else ["--skip_existing"]
    chapters: list[Chapter] = []
    if options.clean:
        chapters.append((set_aside, [pictures, *inner]))
    if options.caption:
        captioner = make_captions_by_git if options.caption == "git" else make_captions
        names = ["--from_names", "file"] if options.caption == "names" else []
        chapters.append((captioner, [*texts, *names, *options.caption_options]))
    if options.tag:
        chapters.append((tag_images_by_wd14_tagger, [*texts, *options.tag_options]))
    if options.metadata is not None:
        chapters += _of_metadata(options, pictures, [*inner, "--full_path"] if inner else [])
    return chapters


def _of_metadata(options: RowOptions, pictures: str, keys: list[str]) -> list[Chapter]:
    file = str(options.metadata)
    chapters: list[Chapter] = []
    if options.caption or not options.tag:
        chapters.append((merge_captions_to_metadata, [pictures, file, *keys]))
    if options.tag or not options.caption:
        chapters.append((merge_dd_tags_to_metadata, [pictures, file, *keys]))
    if options.clean_metadata:
        chapters.append((clean_captions_and_tags, [file, file]))
    if options.buckets:
        words = ["--batch_size", str(options.batch_size), *keys, *options.bucket_options]
        chapters.append((prepare_buckets_latents, [pictures, file, file, str(options.model), *words]))
    return chapters


def _name_of(module: ModuleType) -> str:
    return f"{module.__name__.replace('.', '/')}.py"


if __name__ == "__main__":
    run_command(main)
