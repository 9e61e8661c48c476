"""A text for every picture: pictures are decoded ahead in threads and described in batches, and each text is
written as soon as it is there, so that what was done stays, whatever stops the command.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from library.console import progress_bar, say
from library.options.caption_tools import PictureTextOptions
from library.preparation.each_picture import MOST_READERS, read_ahead
from library.preparation.pictures import text_file_of
from library.preparation.undo import Undo
from library.problems import Problems, UserError
from library.stopping import Stopped
from library.wording import counted

T = TypeVar("T")

BATCHES_AHEAD = 3  # that are decoded before they are needed


@dataclass
class Done:
    """What became of the pictures.

    pictures: how many there are.
    described: how many have been described.
    empty: how many of these have no words.
    problems: of pictures that could not be read.
    """

    pictures: int
    described: int = 0
    empty: int = 0
    problems: Problems = field(default_factory=Problems)


@dataclass(frozen=True)
class Describer(Generic[T]):
    """How pictures become texts.

    read: a picture's file -> what the model sees of it, in a thread. Raises UserError.
    describe: pictures and what was read of them -> a text each.
    write: takes each text. Raises NotWritten, which ends the work.
    """

    read: Callable[[Path], T]
    describe: Callable[[Sequence[Path], Sequence[T]], Sequence[str]]
    write: Callable[[Path, str], None]


def describe_pictures(
    pictures: Sequence[Path], how: Describer[T], options: PictureTextOptions, *, batch_size: int | None = None
) -> Done:
    """Describe all pictures; those that cannot be read are left out, with a problem.

    batch_size: pictures at a time, if it is not that of the options.
    Raises Stopped that says how many were described.
    """
    done = Done(len(pictures))
    size = batch_size or options.batch_size
    readers = options.max_data_loader_n_workers or min(MOST_READERS, os.cpu_count() or 1)
    read = read_ahead(pictures, how.read, readers=readers, ahead=max(readers, BATCHES_AHEAD * size))
    try:
        with (
            progress_bar(total=len(pictures), desc="pictures", unit="img", disable=not pictures) as bar,
            closing(read),
        ):
            while batch := list(islice(read, size)):
                _describe(batch, how, done, options.debug)
                bar.update(len(batch))
    except Stopped as stop:
        stop.kept = f"{done.described} of {counted(len(pictures), 'picture')} done; --skip_existing goes on"
        raise
    return done


def _describe(batch: list[tuple[Path, T | UserError]], how: Describer[T], done: Done, shows: bool) -> None:
    for _, found in batch:
        if isinstance(found, UserError):
            done.problems.found.extend(found.problems)
    good = [(path, found) for path, found in batch if not isinstance(found, UserError)]
    if not good:
        return
    texts = how.describe([path for path, _ in good], [found for _, found in good])
    for (path, _), text in zip(good, texts, strict=True):
        how.write(path, text)
        done.described += 1
        done.empty += not text
        if shows:
            say(f"{path} {text}")


class TextFiles:
    """The text files beside pictures, which are replaced with what stood there kept."""

    def __init__(self, options: PictureTextOptions, suffix: str) -> None:
        self._skips, self._suffix = options.skip_existing, suffix
        self._folder = options.train_data_dir
        self._undo = Undo(options.train_data_dir)
        self.there = 0  # pictures that were left out

    def of(self, picture: Path) -> Path:
        """A picture's text file."""
        return text_file_of(picture, self._suffix)

    def still_to_do(self, pictures: Sequence[Path]) -> list[Path]:
        """The pictures without those that have a text, if these are skipped."""
        todo = [picture for picture in pictures if not (self._skips and self.of(picture).exists())]
        self.there = len(pictures) - len(todo)
        return todo

    def write(self, picture: Path, text: str) -> None:
        """Write a picture's text, with a line end. Raises NotWritten."""
        self._undo.replace(self.of(picture), f"{text}\n".encode())

    def close(self) -> None:
        self._undo.close()

    def tell(self, done: Done, one: str, many: str) -> None:
        """Say how many texts were written and replaced, and where the old ones are."""
        parts = [f"{counted(done.described, one, many)} in {self._folder} ({self._suffix})"]
        if self._undo.path:
            parts.append(f"{self._undo.count} replaced others, which are in {self._undo.path}")
        if self.there:
            parts.append(f"{counted(self.there, 'was', 'were')} there already")
        say("; ".join(parts))
