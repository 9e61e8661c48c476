"""A PNG for every picture, found by the picture's name: hints of ControlNets, masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from library.console import say
from library.files import whole_file
from library.preparation.each_picture import work_on_each
from library.preparation.pictures import pictures_by_png
from library.problems import Problems
from library.wording import counted


def write_pngs(
    folder: Path, target: Path, draw: Callable[[Path], Image.Image], *, overwrite: bool, what: str
) -> Problems:
    """Write what `draw` makes of each picture in `folder`, and in folders inside, to a PNG of its name in
    `target`, and say how many were made. Returns the problems of pictures without one.

    overwrite: also where there is a PNG already.
    what: one of them, for messages: "mask".
    Raises UserError when nothing could be done.
    """
    wanted = pictures_by_png(folder, target)
    todo = {picture: png for png, picture in wanted.items() if overwrite or not png.exists()}

    def work(picture: Path) -> int:
        image = draw(picture)
        with whole_file(todo[picture]) as temporary:
            image.save(temporary, format="PNG")
        return 1

    goes_on = "--overwrite begins again" if overwrite else "the same command goes on"
    worked = work_on_each(list(todo), work, goes_on=goes_on)
    there = len(wanted) - len(todo)
    tail = f"; {counted(there, 'was', 'were')} there already" if there else ""
    say(f"{counted(worked.made, what)} in {target}{tail}")
    return worked.problems
