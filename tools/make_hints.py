"""Make hints for a ControlNet of a folder of pictures: edges, lines, blurred, small or grey copies, masks.

python tools/make_hints.py my_pictures my_hints --kind canny
python tools/make_hints.py my_pictures my_hints --kind blur --radius 12
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from library.console import progress_bar
from library.data.scan.folders import is_image_name, list_folder
from library.files import prepare_folder, whole_file
from library.options.hint_tools import HintOptions
from library.options.parser import parse
from library.problems import Problems, UserError, run_command
from library.wording import counted


@dataclass(frozen=True)
class Run:
    hints: HintOptions


def main() -> None:
    options = parse(Run, __doc__).hints
    wanted = find_pictures(options)
    todo = {hint: path for hint, path in wanted.items() if options.overwrite or not hint.exists()}

    from library.data.pictures.hint_kinds import make_hint

    problems = Problems()
    for hint, picture in progress_bar(todo.items(), desc="hints", unit="img"):
        made = problems.attempt(make_hint, str(picture), options)
        if made is not None:
            with whole_file(hint) as temporary:
                made.save(temporary, format="PNG")
    there = len(wanted) - len(todo)
    print(f"{counted(len(todo) - len(problems.found), 'hint')} in {options.hints}", end="")
    print(f"; {counted(there, 'was', 'were')} there already" if there else "")
    problems.raise_if_any()


def find_pictures(options: HintOptions) -> dict[Path, Path]:
    """The hint's file -> the picture it is made of, for every picture in the folder and those in it.

    Raises UserError when there are none, or two of one name.
    """
    problems, found = Problems(), dict[Path, Path]()
    entries = list_folder(options.pictures, "<pictures>", problems) or []
    inner = [Path(entry.path) for entry in entries if entry.is_dir()]
    entries += [entry for folder in inner for entry in list_folder(folder, "<pictures>", problems) or []]
    pictures = [Path(entry.path) for entry in entries if is_image_name(entry.name) and not entry.is_dir()]
    for picture in pictures:
        hint = options.hints / f"{picture.stem}.png"
        if hint in found:
            fix = "rename one: a hint is found by its picture's name"
            problems.add(picture, f"is called as {found[hint]}", fix)
        found[hint] = picture
    if not found and not problems.found:
        raise UserError.of(options.pictures, "holds no pictures")
    problems.attempt(prepare_folder, options.hints, "choose another folder")
    problems.raise_if_any()
    return found


if __name__ == "__main__":
    run_command(main)
