"""Folders of images: which files count, and DreamBooth's `<repeats>_<class tokens>` layout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from library.paths import is_utf8
from library.problems import Problems, warn
from library.wording import counted

MOST_REPEATS = 10_000  # of a folder's name; more is a date, or a number of another kind
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl")


@dataclass(frozen=True)
class ClassFolder:
    """`10_sks dog`: its images train ten times per epoch, those without a caption with "sks dog"."""

    path: Path
    repeats: int
    class_tokens: str | None

    @classmethod
    def from_path(cls, path: Path) -> ClassFolder | None:
        """The folder's meaning by its name; None when that does not begin with a number."""
        number, _, tokens = path.name.partition("_")
        if not (number.isascii() and number.isdigit()):
            return None
        return cls(path, int(number), tokens or None)


def find_class_folders(parent: Path, option: str, problems: Problems) -> list[ClassFolder]:
    """The class folders in `parent`, by name. When there are none, the problem says what is there instead."""
    entries = list_folder(parent, option, problems)
    if entries is None:
        return []
    folders = sorted(entry.name for entry in entries if is_folder(entry))
    found = {name: ClassFolder.from_path(parent / name) for name in folders}
    class_folders = [folder for folder in found.values() if folder is not None]
    for folder in class_folders:
        if folder.repeats > MOST_REPEATS:
            cause = f"is read as {folder.repeats} repeats of {folder.class_tokens or 'its images'!r}"
            problems.add(folder.path, cause, f"rename it, such as {parent / f'1_{folder.path.name}'}")
        if not is_utf8(folder.path.name):
            problems.add(folder.path, "has a name that is not UTF-8 text", "rename it")
    class_folders = [folder for folder in class_folders if folder.repeats <= MOST_REPEATS]
    if not any(found.values()):
        fix = _layout_fix(parent, folders, entries)
        problems.add(
            f"{option} {parent}", f"has no <repeats>_<class tokens> folder; {describe_folder(entries)}", fix
        )
    elif None in found.values():
        ignored = ", ".join(repr(name) for name, folder in found.items() if folder is None)
        warn(f"{parent}: folders whose name does not begin with a number are left out: {ignored}")
    return class_folders


def list_folder(folder: Path, where: str, problems: Problems) -> list[os.DirEntry[str]] | None:
    """A folder's entries by name, without hidden and system files; None, and a problem, when it cannot be
    read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted([e for e in entries if not is_system_name(e.name)], key=attrgetter("name"))
    except FileNotFoundError:
        problems.add(f"{where} {folder}", "there is no such folder", _nearest_fix(folder))
    except NotADirectoryError:
        problems.add(f"{where} {folder}", "is a file, not a folder")
    except OSError as error:
        problems.add(f"{where} {folder}", f"cannot be read ({error.strerror or error})")
    return None


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file; a link that leads to itself is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_lost_link(entry: os.DirEntry[str]) -> bool:
    """A broken link is no file, but its user takes it for one."""
    return entry.is_symlink() and not is_file(entry) and not is_folder(entry)


def is_system_name(name: str) -> bool:
    """Whether a file is hidden (as macOS' `._photo.jpg` and `.DS_Store`) or one of Windows' own."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def stem_of(name: str) -> str:
    """A file's name without its suffix, which it must have; several times faster than Path.stem."""
    return name.rpartition(".")[0]


def name_some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, for messages: "a.png, b.png and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _layout_fix(parent: Path, folders: list[str], entries: list[os.DirEntry[str]]) -> str:
    """What to do about a folder without class folders, depending on what it holds."""
    images = any(is_image_name(entry.name) for entry in entries)
    if images and ClassFolder.from_path(Path(parent.resolve().name)):
        return f"give the folder above it: {parent.resolve().parent}"
    if images:
        return f"move the images to a folder such as {parent / '10_sks dog'}"
    for name in folders:
        if _has_class_folders(parent / name):
            return f"did you mean {parent / name}?"
    if folders:
        return f"rename the folders, such as {parent / ('10_' + folders[0])}"
    return f"put the images into a folder such as {parent / '10_sks dog'}"


def _has_class_folders(folder: Path) -> bool:
    try:
        return any(path.is_dir() and ClassFolder.from_path(path) for path in folder.iterdir())
    except OSError:
        return False


def describe_folder(entries: Iterable[os.DirEntry[str]]) -> str:
    """What is in a folder, for messages: "found 2 folders ('cat', 'dog'), 3 .png files" or "it is empty"."""
    folders = [entry.name for entry in entries if is_folder(entry)]
    suffixes = Counter(Path(entry.name).suffix.lower() or "other" for entry in entries if is_file(entry))
    found = [counted(count, f"{suffix} file") for suffix, count in suffixes.most_common(4)]
    if folders:
        names = ", ".join(map(repr, folders[:3])) + (", ..." if len(folders) > 3 else "")
        found.insert(0, f"{counted(len(folders), 'folder')} ({names})")
    return f"found {', '.join(found)}" if found else "it is empty"


def _nearest_fix(folder: Path) -> str:
    """Names the nearest folder above that exists: it tells a typo from a wrong working directory."""
    for parent in folder.absolute().parents:
        if parent.is_dir():
            return f"{parent} exists, {folder.absolute().relative_to(parent).parts[0]!r} in it does not"
    return ""
