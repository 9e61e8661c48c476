"""Options of the command that edits captions and tags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import option, refuse, warn_when
from library.options.metadata_tools import suffix_option

Order = Literal["no", "name", "frequency"]
_EDITS = ("replace", "replace_text", "remove", "add", "add_first", "dedupe", "trigger_word")


@dataclass(frozen=True)
class EditingOptions:
    """Editing."""

    source: Path = option(
        None, "folder of pictures with their text files, or a metadata file", positional=True
    )
    replace: tuple[str, ...] = option(
        (), "replace a tag by another, by several (a=b, c) or by none (a=)", metavar="OLD=NEW"
    )
    replace_text: tuple[str, ...] = option(
        (), "replace a piece of text wherever it stands, in sentences too", metavar="OLD=NEW"
    )
    remove: tuple[str, ...] = option((), "remove tags; * and ? stand for any signs", metavar="TAG")
    add: tuple[str, ...] = option((), "add tags at the end where they are missing", metavar="TAG")
    add_first: tuple[str, ...] = option((), "add tags at the front where they are missing", metavar="TAG")
    dedupe: bool = option(False, "keep the first of equal tags")
    sort: Order = option(
        "no", "put tags in order: of the alphabet (name), or the most frequent ones first (frequency)"
    )
    trigger_word: str | None = option(
        None, "put this word first, and add it where it is missing", metavar="WORD"
    )
    separator: str = option(",", "what stands between tags", metavar="TEXT")
    caption_extension: str = suffix_option(".txt", "suffix of the text files")
    field: Literal["tags", "caption"] = option("tags", "which text of a metadata file's entries to edit")
    recursive: bool = option(False, "also the pictures in folders inside")
    dry_run: bool = option(False, "print what would change, and change nothing")
    overwrite: bool = option(False, "replace the texts; the old ones are kept in one undo-....jsonl")

    def __post_init__(self) -> None:
        pairs = {name: getattr(self, name) for name in ("replace", "replace_text")}
        asks = any(getattr(self, name) for name in _EDITS) or self.sort != "no"
        refuse(
            (self.source is None, "<source>", "is needed: a folder of pictures or a metadata file"),
            (self.source is not None and not asks, "<source>", "nothing is to be edited: see --help"),
            *(
                (
                    not given.partition("=")[0].strip() or "=" not in given,
                    name,
                    f"expects OLD=NEW, got {given!r}",
                )
                for name, found in pairs.items()
                for given in found
            ),
            (not self.separator.strip(), "separator", "must have a sign: what stands between tags"),
            (
                asks and not (self.dry_run or self.overwrite),
                "overwrite",
                "is needed to replace texts; --dry_run shows what would change",
            ),
        )
        warn_when((self.dry_run and self.overwrite, "overwrite", "has no effect with --dry_run"))
