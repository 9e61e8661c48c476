"""Faces of a folder of pictures, cut out and written one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from library.console import say
from library.data.pictures.images import load_image
from library.data.scan.folders import name_some, stem_of
from library.files import prepare_folder, whole_file
from library.options.face_tools import FaceOptions
from library.preparation.each_picture import work_on_each
from library.preparation.faces.cutting import cut_out
from library.preparation.faces.detectors import open_detector
from library.preparation.faces.face import Find
from library.preparation.faces.upright import TurnedFace, faces_in, turned_faces_in
from library.preparation.pictures import find_pictures
from library.problems import Problems
from library.wording import counted

# A picture's name, and what follows it: the number of the face if all are written, and where it is.
_NAME = re.compile(r"(.*)(_\d{4,}){4}\.png")
_NUMBERED_NAME = re.compile(r"(.*)_\d\d+(_\d{4,}){4}\.png")


def write_faces(options: FaceOptions) -> Problems:
    """Write the faces of all pictures. Returns the problems of pictures that could not be read.

    Raises UserError when nothing could be done.
    """
    pictures = find_pictures(options.src_dir, recursive=None, where="--src_dir")
    find = open_detector(options)
    prepare_folder(options.dst_dir, "choose another folder")
    todo = _still_to_do(pictures, options) if options.skip_existing else pictures
    without: list[str] = []

    def work(picture: Path) -> int:
        made = _write_faces_of(picture, find, options)
        if not made:
            without.append(picture.name)
        return made

    worked = work_on_each(todo, work, goes_on="--skip_existing goes on")
    there = len(pictures) - len(todo)
    parts = [f"{counted(worked.made, 'face')} of {counted(worked.done - len(without), 'picture')}"]
    parts[0] += f" in {options.dst_dir}"
    if there:
        parts.append(f"{counted(there, 'picture')} had theirs already")
    if without:
        parts.append(f"none in {name_some(sorted(without))}")
    say("; ".join(parts))
    return worked.problems


def chosen(faces: Sequence[TurnedFace], options: FaceOptions) -> list[tuple[int, TurnedFace]]:
    """The faces to write, with their numbers, from 1, among all: those of the sizes that are asked for, or
    the first of these.

    faces: largest first.
    """
    smallest, below = options.min_size or 0, options.max_size or float("inf")
    fitting = [
        (number, turned)
        for number, turned in enumerate(faces, start=1)
        if smallest <= turned.face.side < below
    ]
    return fitting if options.multiple_faces else fitting[:1]


def _write_faces_of(picture: Path, find: Find, options: FaceOptions) -> int:
    """How many there are. Raises UserError when the picture cannot be read or a face be written."""
    pixels = np.asarray(load_image(picture))
    look = turned_faces_in if options.rotate else faces_in
    faces = chosen(look(pixels, find, lowest=options.min_score), options)
    for number, turned in faces:
        image, place = cut_out(pixels, turned, options)
        numbered = f"_{number:02d}" if options.multiple_faces else ""
        with whole_file(options.dst_dir / f"{stem_of(picture.name)}{numbered}{place}.png") as temporary:
            image.save(temporary, format="PNG")
    return len(faces)


def _still_to_do(pictures: Sequence[Path], options: FaceOptions) -> list[Path]:
    """The pictures of which no face is in the folder."""
    name = _NUMBERED_NAME if options.multiple_faces else _NAME
    found = (name.fullmatch(path.name) for path in options.dst_dir.iterdir())
    stems = {match[1] for match in found if match}
    return [picture for picture in pictures if stem_of(picture.name) not in stems]
