"""What a user brings and what a run leaves, found on disk."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from notebooks.failure import CellStopped

PICTURES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".bmp": "bmp"}  # suffix -> type


def find_pictures(path: Path) -> Path:
    """The folder of a user's pictures: it, or what is in the .zip file of that name, unpacked beside it
    once.
    """
    folder = path.with_suffix("") if path.suffix == ".zip" else path
    if path.suffix == ".zip" and path.is_file() and not folder.is_dir():
        shutil.unpack_archive(path, folder)
    if not folder.is_dir():
        raise CellStopped(
            f"{path} is not there: put a folder of pictures or a .zip file in that place, or change"
            " `pictures` in cell 1 and run it and cell 5 again."
        )
    return folder


def some_pictures(folder: Path, count: int) -> list[Path]:
    """At most `count` pictures of a folder and the folders in it, spread evenly over their names."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    return found[:: -(-len(found) // count)] if found else []


def latest_state(folder: Path, name: str) -> Path:
    """The newest state that a training of that name left in a folder."""
    states = sorted(folder.glob(f"{name}*-state"), key=lambda path: path.stat().st_mtime)
    if not states:
        raise CellStopped(f"{folder} has no state of {name} to go on from: set `go_on` to False.")
    return states[-1]


def newest_grids(folder: Path) -> list[Path]:
    """The grids of the generator's last run into a folder, in their order."""
    grids = sorted(folder.glob("grid_*.png"))
    moments = [re.sub(r"_\d+$", "", path.stem) for path in grids]
    return [path for path, moment in zip(grids, moments, strict=True) if moment == moments[-1]]


def list_files(folder: Path) -> None:
    """What is in a folder: every file with its size, folders with the sum of theirs."""
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        size = sum(one.stat().st_size for one in files) / 2**20
        print(f"{size:9.1f} MB  {path}{'' if path.is_file() else f'/ ({len(files)} files)'}")
