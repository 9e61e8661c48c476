"""Pictures that a training cannot use or should not, moved out of its folder with the texts beside them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np

from library.console import progress_bar, say
from library.data.pictures.images import load_rgba
from library.data.scan.folders import is_image_name, stem_of
from library.files import NotWritten
from library.options.preparation_tools import AsideOptions
from library.preparation.each_picture import MOST_READERS, read_ahead
from library.preparation.pictures import find_pictures
from library.problems import UserError
from library.wording import counted

_BESIDE = (".txt", ".caption", ".json")  # texts that go with their picture


def set_aside(options: AsideOptions) -> None:
    """Move pictures that are unreadable, tiny, there twice (all but the first) or transparent to a folder
    beside theirs, which has a folder for each reason. Raises NotWritten when one cannot be moved.
    """
    pictures = find_pictures(options.train_data_dir, recursive=options.recursive)
    folder = options.train_data_dir.absolute()
    aside = folder.with_name(f"{folder.name}_set_aside")
    seen: dict[str, Path] = {}
    counts = Counter[str]()
    readers = min(MOST_READERS, os.cpu_count() or 1)
    read = read_ahead(pictures, lambda path: _look(path, options), readers=readers, ahead=4 * readers)
    for picture, found in progress_bar(read, total=len(pictures), desc="looking", unit="img"):
        reason = "unreadable" if isinstance(found, UserError) else found[0]
        if isinstance(found, UserError):
            say(str(found).split("\n")[0])
        elif not reason and not options.keep_duplicates and (first := seen.get(found[1])):
            reason = "duplicate"
            say(f"{picture}: has the pixels of {first}")
        elif not reason:
            seen[found[1]] = picture
        if reason:
            _move(picture, aside / reason / picture.parent.relative_to(options.train_data_dir))
            counts[reason] += 1
    named = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    of = f"of {counted(len(pictures), 'picture')}"
    say(f"{counts.total()} {of} set aside in {aside}: {named}" if named else f"none {of} set aside")


def _look(path: Path, options: AsideOptions) -> tuple[str, str]:
    """Why a picture is set aside by itself, or "", and a hash of its pixels. Raises UserError."""
    image, alpha = load_rgba(path)
    if min(image.size) < options.min_side:
        return "tiny", ""
    if alpha is not None and np.asarray(alpha).min() < 255 and not options.keep_transparent:
        return "transparent", ""
    content = hashlib.blake2b(image.tobytes(), digest_size=16)
    content.update(repr(image.size).encode())
    return "", content.hexdigest()


def _move(picture: Path, folder: Path) -> None:
    """Move a picture, and the texts beside it unless another picture has its name."""
    files = [picture]
    if not any(other != picture for other in _of_one_name(picture)):
        files += [path for suffix in _BESIDE if (path := picture.with_suffix(suffix)).exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            path.rename(_free(folder / path.name))
    except OSError as error:
        raise NotWritten.because(picture, error, cause=f"could not be moved to {folder}") from None


def _of_one_name(picture: Path) -> list[Path]:
    stem = stem_of(picture.name)
    return [path for path in picture.parent.iterdir() if is_image_name(path.name) and path.stem == stem]


def _free(path: Path) -> Path:
    """The path, or with a number behind its name if something is there."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return free
