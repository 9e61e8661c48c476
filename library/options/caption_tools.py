"""Options that the commands share which write a text beside every picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.fields import below, option, refuse
from library.options.metadata_tools import suffix_option


@dataclass(frozen=True)
class PictureTextOptions:
    """Pictures and their texts."""

    train_data_dir: Path = option(None, "folder of the pictures", positional=True)
    recursive: bool = option(False, "also the pictures in folders inside")
    batch_size: int = option(1, "pictures that the model sees together", metavar="N")
    max_data_loader_n_workers: int | None = option(
        None, "threads that decode pictures (default: 4, or as many as there are processors)", metavar="N"
    )
    skip_existing: bool = option(False, "leave out pictures that have a text already")
    debug: bool = option(False, "print every picture's text")

    def __post_init__(self) -> None:
        refuse(
            (self.train_data_dir is None, "<train_data_dir>", "is needed: the folder of the pictures"),
            *below(1, self, "batch_size"),
            *below(0, self, "max_data_loader_n_workers"),
        )


@dataclass(frozen=True)
class CaptionTextOptions(PictureTextOptions):
    """Pictures and their captions."""

    caption_extension: str = suffix_option(".caption", "suffix of the files to write")


@dataclass(frozen=True)
class TagTextOptions(PictureTextOptions):
    """Pictures and their tags."""

    caption_extension: str = suffix_option(".txt", "suffix of the files to write")
