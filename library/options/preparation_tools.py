"""Options of the command that does all of preparation in a row, and of the one that sets pictures aside."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import below, option, refuse, warn_when


def read_words(value: object) -> tuple[str, ...]:
    """The words of a part of a command line, as a shell splits them. Raises ValueError."""
    try:
        return tuple(shlex.split(str(value), posix=os.name != "nt"))
    except ValueError as error:
        raise ValueError(f"expects options as on a command line ({error})") from None


@dataclass(frozen=True)
class AsideOptions:
    """Setting aside."""

    train_data_dir: Path = option(None, "folder of the pictures", positional=True)
    recursive: bool = option(False, "also the pictures in folders inside")
    min_side: int = option(64, "set aside pictures with a side below this", metavar="N")
    keep_duplicates: bool = option(False, "do not set aside pictures of equal pixels")
    keep_transparent: bool = option(False, "do not set aside pictures with transparent parts")

    def __post_init__(self) -> None:
        refuse(
            (self.train_data_dir is None, "<train_data_dir>", "is needed: the folder of the pictures"),
            *below(1, self, "min_side"),
        )


@dataclass(frozen=True)
class RowOptions:
    """Chapters."""

    train_data_dir: Path = option(None, "folder of the pictures", positional=True)
    recursive: bool = option(False, "also the pictures in folders inside")
    clean: bool = option(
        False, "first set aside pictures that are unreadable, tiny, there twice or transparent"
    )
    caption: Literal["blip", "git", "names"] | None = option(
        None, "caption them: by a model, or from the names of files"
    )
    caption_options: tuple[str, ...] = option(
        (), "more options of the captioner: --caption_options='--seed 1'", convert=read_words, metavar="TEXT"
    )
    tag: Literal["wd14"] | None = option(None, "tag them")
    tag_options: tuple[str, ...] = option(
        (), "more options of the tagger: --tag_options='--thresh 0.4'", convert=read_words, metavar="TEXT"
    )
    metadata: Path | None = option(None, "put captions and tags into this metadata file", metavar="FILE")
    clean_metadata: bool = option(False, "clean the captions and tags in it")
    buckets: bool = option(False, "sort the pictures into buckets and write their latents")
    model: str | None = option(None, "model whose VAE encodes, for --buckets", metavar="MODEL")
    bucket_options: tuple[str, ...] = option(
        (),
        "more options of --buckets: --bucket_options='--max_resolution 768,768'",
        convert=read_words,
        metavar="TEXT",
    )
    batch_size: int = option(1, "pictures that a model sees together", metavar="N")
    overwrite: bool = option(False, "write captions and tags anew where there are some")

    def __post_init__(self) -> None:
        refuse(
            (self.train_data_dir is None, "<train_data_dir>", "is needed: the folder of the pictures"),
            (self.buckets and self.metadata is None, "buckets", "needs --metadata, which gets the sizes"),
            (self.buckets and self.model is None, "buckets", "needs --model, whose VAE encodes"),
            *below(1, self, "batch_size"),
        )
        warn_when(
            (self.caption_options and not self.caption, "caption_options", "has no effect without --caption"),
            (self.tag_options and not self.tag, "tag_options", "has no effect without --tag"),
            (
                bool(self.bucket_options) and not self.buckets,
                "bucket_options",
                "has no effect without --buckets",
            ),
            (
                self.clean_metadata and self.metadata is None,
                "clean_metadata",
                "has no effect without --metadata",
            ),
            (self.model is not None and not self.buckets, "model", "has no effect without --buckets"),
        )
