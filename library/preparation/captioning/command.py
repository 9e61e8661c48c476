"""Captions for a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from library.console import activity, say
from library.data.pictures.images import load_image
from library.files import check_writable
from library.options.caption_tools import CaptionTextOptions
from library.options.captioning_tools import CaptionMachineOptions, CaptionWordOptions, NamesOf
from library.preparation.captioning.decoding import Decoding
from library.preparation.captioning.words import caption_of_names, dressed
from library.preparation.pictures import find_pictures
from library.preparation.texts import Describer, TextFiles, describe_pictures
from library.problems import Problems, warn
from library.randomness import derive_seed
from library.wording import counted


def caption_pictures(
    texts: CaptionTextOptions,
    words: CaptionWordOptions,
    machine: CaptionMachineOptions,
    *,
    model: str,
    prompt: str | None,
    decoding: Decoding,
    seed: int = 0,
) -> Problems:
    """Write a caption for every picture. Returns the problems of pictures that have none now.

    model: a folder or a repository on the hub.
    Raises UserError when nothing could be done.
    """
    files, todo = _start(texts)
    if not todo:
        return _finish(texts, files, todo, Describer(load_image, lambda paths, pictures: [], files.write))
    with activity("opening the captioner"):
        from library.preparation.captioning.model import Captioner

        captioner = Captioner(model, prompt, machine)
    say(f"captioning {counted(len(todo), 'picture')} with {model} on {captioner.device}")

    def describe(paths: Sequence[Path], pictures: Sequence[Image.Image]) -> list[str]:
        drawn = derive_seed(seed, "caption", paths[0].name)
        found = captioner.captions(pictures, decoding, seed=drawn)
        return [dressed(caption, words) for caption in found]

    return _finish(texts, files, todo, Describer(load_image, describe, files.write))


def captions_from_names(texts: CaptionTextOptions, words: CaptionWordOptions, names: NamesOf) -> Problems:
    """The same with the words in the names of files or folders."""
    files, todo = _start(texts)

    def describe(paths: Sequence[Path], _: Sequence[Path]) -> list[str]:
        return [dressed(caption_of_names(path, names), words) for path in paths]

    return _finish(texts, files, todo, Describer(lambda path: path, describe, files.write))


def _start(texts: CaptionTextOptions) -> tuple[TextFiles, list[Path]]:
    pictures = find_pictures(texts.train_data_dir, recursive=texts.recursive)
    check_writable(texts.train_data_dir, "make it writable")
    files = TextFiles(texts, texts.caption_extension)
    return files, files.still_to_do(pictures)


def _finish(texts: CaptionTextOptions, files: TextFiles, todo: list[Path], how: Describer) -> Problems:
    try:
        done = describe_pictures(todo, how, texts)
    finally:
        files.close()
    files.tell(done, "caption", "captions")
    if done.empty:
        warn(f"{texts.train_data_dir}: {counted(done.empty, 'caption is', 'captions are')} empty")
    return done.problems
