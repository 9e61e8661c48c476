"""The pictures of a folder, as all commands of preparation find them."""

from __future__ import annotations

from pathlib import Path

from library.data.scan.folders import (
    describe_folder,
    is_file,
    is_folder,
    is_image_name,
    is_lost_link,
    is_system_name,
    list_folder,
    stem_of,
)
from library.files import prepare_folder
from library.paths import is_utf8
from library.problems import Problems, UserError
from library.wording import counted

_MAC_COPIES = "__MACOSX"  # what zip files of a Mac bring beside the pictures; not pictures


def find_pictures(folder: Path, *, recursive: bool | None, where: str = "<train_data_dir>") -> list[Path]:
    """The pictures in a folder by name, those of folders inside behind them. Hidden and system files and
    copies of a Mac's resource forks are none; broken links are, for the command to tell that it cannot read
    them.

    recursive: whether folders inside count; None: they do not, and the command has no option for it.
    where: how messages name the folder.
    Raises UserError when the folder cannot be read or holds no pictures, with what is there instead.
    """
    problems = Problems()
    found = _pictures_in(folder, bool(recursive), problems, set(), where)
    problems.raise_if_any()
    if not found:
        raise _nothing_in(folder, recursive, where)
    return found


def text_file_of(picture: Path, suffix: str) -> Path:
    """A picture's text file with this suffix, whether it is there or not."""
    return picture.with_name(stem_of(picture.name) + suffix)


def pictures_by_png(folder: Path, target: Path, *, where: str = "<pictures>") -> dict[Path, Path]:
    """The PNG of each picture's name in `target` -> the picture. Pictures in folders inside count, but not
    those in `target`, which is made.

    where: how messages name the folder.
    Raises UserError when there are none, when two have one name, or when `target` cannot be written to.
    """
    problems, found = Problems(), dict[Path, Path]()
    inside = target.resolve()
    for picture in find_pictures(folder, recursive=True, where=where):
        if inside in picture.resolve().parents:
            continue
        png = target / f"{stem_of(picture.name)}.png"
        if png in found:
            fix = "rename one: what is made of a picture is found by its name"
            problems.add(picture, f"is called as {found[png]}", fix)
        found[png] = picture
    if not found and not problems.found:
        raise UserError.of(f"{where} {folder}", f"holds no pictures but those in {target}")
    problems.attempt(prepare_folder, target, "choose another folder")
    problems.raise_if_any()
    return found


def _pictures_in(
    folder: Path, recursive: bool, problems: Problems, seen: set[Path], where: str
) -> list[Path]:
    entries = list_folder(folder, where, problems) or []
    seen.add(folder.resolve())
    images = [entry for entry in entries if is_image_name(entry.name)]
    found = [folder / entry.name for entry in images if is_file(entry) or is_lost_link(entry)]
    for picture in found:
        if not is_utf8(picture.name):
            problems.add(picture, "has a name that is not UTF-8 text", "rename it")
    for entry in entries if recursive else ():
        inner = folder / entry.name
        if is_folder(entry) and entry.name != _MAC_COPIES and inner.resolve() not in seen:
            found += _pictures_in(inner, recursive, problems, seen, where)
    return found


def _nothing_in(folder: Path, recursive: bool | None, where: str) -> UserError:
    entries = list_folder(folder, where, Problems()) or []
    cause = f"holds no pictures; {describe_folder(entries)}"
    inner: dict[str, int] = {}
    for entry in entries if not recursive else ():
        if is_folder(entry) and not is_system_name(entry.name):
            inner[entry.name] = len(_pictures_in(folder / entry.name, True, Problems(), set(), where))
    if not any(inner.values()):
        fix = ""
    elif recursive is None:
        fullest = max(inner, key=lambda name: inner[name])
        fix = f"give a folder inside: {folder / fullest} has {counted(inner[fullest], 'picture')}"
    else:
        fix = f"--recursive takes {counted(sum(inner.values()), 'picture')} in folders inside"
    return UserError.of(f"{where} {folder}", cause, fix)
