"""Options of the commands that put captions and tags into metadata files and clean them there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.options.fields import Check, option, refuse, warn_when


def dotted(value: object) -> str:
    """A suffix with its dot. Raises ValueError for an empty one and one that leads to another folder."""
    text = str(value).strip()
    if not text.strip(". ") or "/" in text or "\\" in text:
        raise ValueError(f"expects a suffix such as .txt, got {text!r}")
    return text if text.startswith(".") else f".{text}"


def suffix_option(default: str, help: str) -> Any:
    """The field of `--caption_extension`, also by sd-scripts' misspelt name."""
    return option(default, help, convert=dotted, metavar=".EXT", aliases=("--caption_extention",))


@dataclass(frozen=True)
class MetadataPlaceOptions:
    """Pictures and metadata."""

    train_data_dir: Path = option(None, "folder of the pictures", positional=True)
    out_json: Path = option(
        None, "metadata file to write; its entries stay if it is there already", positional=True
    )
    in_json: Path | None = option(
        None, "metadata file to begin with (default: the one to write, if it is there)", metavar="FILE"
    )
    full_path: bool = option(
        False, "name pictures by their whole paths, not by their names without suffix; in all steps or none"
    )
    recursive: bool = option(False, "also the pictures in folders inside; needs --full_path")
    debug: bool = option(False, "print every picture's text")

    def __post_init__(self) -> None:
        refuse(
            (self.train_data_dir is None, "<train_data_dir>", "is needed: the folder of the pictures"),
            (self.out_json is None, "<out_json>", "is needed: the metadata file to write"),
            (
                self.recursive and not self.full_path,
                "recursive",
                "needs --full_path: pictures in several folders may have one name",
            ),
        )


@dataclass(frozen=True)
class CaptionFileOptions:
    """Captions to metadata."""

    caption_extension: str = suffix_option(".caption", "suffix of the files to read")


@dataclass(frozen=True)
class TagFileOptions:
    """Tags to metadata."""

    caption_extension: str = suffix_option(".txt", "suffix of the files to read")


@dataclass(frozen=True)
class AllFilesOptions:
    """Captions and tags to metadata."""

    caption_extension: str = suffix_option(".caption", "suffix of the files with captions")
    tags_extension: str = option(".txt", "suffix of the files with tags", convert=dotted, metavar=".EXT")
    clean_caption: bool = option(False, "clean both, as clean_captions_and_tags.py does")


@dataclass(frozen=True)
class CleaningOptions:
    """Cleaning."""

    in_json: Path = option(None, "metadata file to read", positional=True)
    out_json: Path = option(None, "metadata file to write", positional=True)
    third_json: Path | None = option(
        None, "as in old commands: of three names, the first is read and the last is written", positional=True
    )
    whole_words: bool = option(
        False,
        "change whole words and tags only: 'personal' and faces (o_o) stay, what follows a rating stays, and "
        "'girls und panzer' counts nobody",
    )
    debug: bool = option(False, "print every text that changes, before and after")

    def __post_init__(self) -> None:
        refuse(*_two_names(self))
        warn_when((self.third_json is not None, f"<out_json> {self.out_json}", "is left out: three names"))

    @property
    def target(self) -> Path:
        """The file to write."""
        return self.third_json or self.out_json


def _two_names(options: CleaningOptions) -> list[Check]:
    return [
        (options.in_json is None, "<in_json>", "is needed: the metadata file to read"),
        (options.out_json is None, "<out_json>", "is needed: the metadata file to write"),
    ]


@dataclass(frozen=True)
class RestoringOptions:
    """Restoring."""

    undo_file: Path = option(None, "the undo-....jsonl file that a command wrote", positional=True)

    def __post_init__(self) -> None:
        refuse((self.undo_file is None, "<undo_file>", "is needed: the undo-....jsonl that a command wrote"))
