"""The files of an image folder: which are images, which are their captions, and which will not be used."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from library.data.config.specs import SubsetSpec
from library.data.scan.folders import (
    IMAGE_SUFFIXES,
    describe_folder,
    is_file,
    is_folder,
    is_image_name,
    is_lost_link,
    is_system_name,
    list_folder,
    name_some,
    stem_of,
)
from library.paths import is_utf8
from library.problems import Problems
from library.wording import counted

CAPTION_SUFFIXES = (".caption", ".txt")
# Images to other programs; not read here.
FOREIGN_SUFFIXES = (
    *(".gif", ".tif", ".tiff", ".heic", ".heif", ".psd", ".svg", ".ico", ".tga", ".dds", ".exr", ".hdr"),
    *(".jp2", ".jfif", ".qoi", ".ppm", ".pgm", ".pnm", ".pcx"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw"),
)
MOST_FILES_BELOW = 100_000  # that are counted in folders inside an image folder, for a note


class ImageSource(NamedTuple):
    """An image to scan.

    caption: if it is known already.
    listed: its entry in the folder's listing; None when the folder was not listed.
    caption_file: to read the caption from; None when there is none or the caption is known.
    hint: its conditioning image.
    holes: the mask of what is painted anew.
    has_holes: whether its alpha channel is such a mask.
    """

    image: Path
    caption: str | None = None
    listed: os.DirEntry[str] | None = None
    caption_file: os.DirEntry[str] | None = None
    hint: os.DirEntry[str] | None = None
    holes: os.DirEntry[str] | None = None
    has_holes: bool = False


def sources_in_folder(
    subset: SubsetSpec, problems: Problems, notes: list[str], *, folders: frozenset[Path] = frozenset()
) -> list[ImageSource]:
    """The images of the subset's folder by name, with their caption files. Adds notes about what is there but
    not used.

    folders: that the run's other subsets use; nothing is noted about them.
    """
    folder = subset.image_dir
    assert folder is not None
    entries = list_folder(folder, "image folder", problems)
    if entries is None:
        return []
    entries = _usable(folder, entries, problems, notes)
    files = pair_captions(entries, subset.caption_extension)
    if not files.images:
        suffixes = " ".join(IMAGE_SUFFIXES)
        problems.add(
            folder,
            f"has no images ({suffixes}); {describe_folder(entries)}",
            "add some, or remove the folder",
        )
    _find_same_stems(folder, list(files.images), problems)
    _note_captions(subset, files, notes)
    _note_foreign_images(folder, files.spare, notes)
    _note_images_below(folder, [entry.name for entry in entries if is_folder(entry)], folders, notes)
    return [
        ImageSource(
            folder / name,
            listed=files.entries[name],
            caption_file=None if caption is None else files.entries[caption],
        )
        for name, caption in files.images.items()
    ]


def _usable(
    folder: Path, entries: list[os.DirEntry[str]], problems: Problems, notes: list[str]
) -> list[os.DirEntry[str]]:
    """The entries without those that cannot be read: pipes and devices, over which one would wait, and names
    that are not UTF-8, which neither metadata nor caches can hold.
    """
    usable, odd = [], []
    for entry in entries:
        if not (is_file(entry) or is_folder(entry) or entry.is_symlink()):
            odd.append(entry.name)
        elif is_utf8(entry.name):
            usable.append(entry)
        elif is_image_name(entry.name):
            problems.add(folder / entry.name, "has a name that is not UTF-8 text", "rename it")
    if odd:
        are = counted(len(odd), "entry is no file and is", "entries are no files and are")
        notes.append(f"{folder}: {are} left out: {name_some(odd)}")
    return usable


class FolderFiles(NamedTuple):
    """An image folder's files by name.

    images: each with the name of its caption file, or None.
    spare: files that are neither an image nor the caption of one.
    lonely_captions: those of them with the suffix of captions.
    """

    entries: dict[str, os.DirEntry[str]]
    images: dict[str, str | None]
    spare: list[str]
    lonely_captions: list[str]

    @property
    def without_caption(self) -> list[str]:
        """Images that have no caption file."""
        return [image for image, caption in self.images.items() if caption is None]


def pair_captions(entries: Iterable[os.DirEntry[str]], suffix: str) -> FolderFiles:
    """The files among a folder's entries, sorted out. suffix: of caption files."""
    files = {entry.name: entry for entry in entries if is_file(entry) or is_lost_link(entry)}
    images = {name: caption_name(stem_of(name), suffix, files) for name in files if is_image_name(name)}
    spare = sorted(files.keys() - images.keys() - set(images.values()))
    return FolderFiles(files, images, spare, [name for name in spare if name.endswith(suffix)])


def caption_name(stem: str, suffix: str, names: Container[str]) -> str | None:
    """`<stem><suffix>`, or for a face crop, `<name>_<cx>_<cy>_<w>_<h>`, the caption of the whole picture."""
    if (name := stem + suffix) in names:
        return name
    parts = stem.split("_")
    whole = "_".join(parts[:-4]) + suffix
    return whole if len(parts) >= 5 and whole in names else None


def _find_same_stems(folder: Path, images: list[str], problems: Problems) -> None:
    stems = [stem_of(name) for name in images]
    if len(set(stems)) == len(stems):
        return
    by_stem: defaultdict[str, list[str]] = defaultdict(list)
    for name, stem in zip(images, stems, strict=True):
        by_stem[stem].append(name)
    for first, *others in by_stem.values():
        if others:
            cause = f"shares its name, and so its caption, with {' and '.join(others)}"
            problems.add(folder / first, cause, "rename or remove all but one")


def _note_captions(subset: SubsetSpec, files: FolderFiles, notes: list[str]) -> None:
    """Note caption files that belong to no image, and those with another suffix than the wanted one, which
    are most likely meant to be used.
    """
    wanted = subset.caption_extension
    if lonely := files.lonely_captions:
        belong = counted(len(lonely), f"{wanted} file belongs", f"{wanted} files belong")
        notes.append(f"{subset.source}: {belong} to no image: {name_some(lonely)}")
    without = set(map(stem_of, files.without_caption))
    suffixes = (*CAPTION_SUFFIXES, wanted.lower())
    others = [name for name in files.spare if stem_of(name) in without and name.lower().endswith(suffixes)]
    for suffix, count in Counter(Path(name).suffix for name in others).items():
        unused = counted(count, f"{suffix} file is", f"{suffix} files are")
        uses = "uses it" if count == 1 else "uses them"
        notes.append(
            f"{subset.source}: {unused} not used, captions are read from {wanted} files;"
            f" --caption_extension {suffix} {uses}"
        )


def _note_foreign_images(folder: Path, spare: list[str], notes: list[str]) -> None:
    found = [name for name in spare if name.lower().endswith(FOREIGN_SUFFIXES)]
    if found:
        suffixes = " ".join(sorted({Path(name).suffix.lower() for name in found}))
        files = counted(len(found), "file of a kind that is", "files of kinds that are")
        left_out, them = ("is left out", "it") if len(found) == 1 else ("are left out", "them")
        notes.append(
            f"{folder}: {files} not read ({suffixes}) {left_out}: {name_some(found)};"
            f" convert {them} to PNG or JPEG to use {them}"
        )


def _note_images_below(folder: Path, names: list[str], used: frozenset[Path], notes: list[str]) -> None:
    """Folders inside an image folder are not scanned, which people do not expect."""
    counts: Counter[str] = Counter()
    for name in names:
        counts[name] = _count_images(folder / name, used)
    found = [name for name in names if counts[name]]
    if found:
        place = "a folder inside it is" if counts.total() == 1 else "folders inside it are"
        images = counted(counts.total(), "image")
        notes.append(
            f"{folder}: {images} in {place} not used ({name_some(found)});"
            " a folder with images needs a subset of its own"
        )


def _count_images(folder: Path, used: frozenset[Path]) -> int:
    """The number of images in a folder and all folders below it, without those that the run uses."""
    count = seen = 0
    for path, folders, files in os.walk(folder):
        if Path(path).resolve() in used:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not is_system_name(name)]
        count += sum(is_image_name(name) and not is_system_name(name) for name in files)
        seen += len(files)
        if seen > MOST_FILES_BELOW:
            break
    return count
