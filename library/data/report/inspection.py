"""Every picture of a dataset decoded: damaged files are found, and pictures that look alike."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from library.data.pictures.images import load_image
from library.data.report.lookalikes import Group, Likeness, find_groups, likeness
from library.problems import Problem, UserError


@dataclass(frozen=True)
class Inspection:
    """problems: of the files that cannot be decoded. alike: the others that are there more than once; their
    members are places in `pictures`.
    """

    problems: tuple[Problem, ...]
    pictures: tuple[Path, ...]
    alike: tuple[Group, ...]


def inspect_pictures(pictures: Iterable[Path], hints: Iterable[Path] = ()) -> Inspection:
    """Decode every file once, in threads, with a progress bar. hints: conditioning images, which are decoded
    too but may be alike.
    """
    compared = dict.fromkeys(pictures)
    files = list(dict.fromkeys([*compared, *hints]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = pool.map(_look_at, files)
        results = list(tqdm(looked, "decoding", len(files), leave=False, unit="img", delay=1))
    whole = [(path, seen) for path, seen in zip(files, results, strict=True) if isinstance(seen, Likeness)]
    whole = [(path, seen) for path, seen in whole if path in compared]
    problems = [problem for seen in results if isinstance(seen, UserError) for problem in seen.problems]
    groups = find_groups([seen for _, seen in whole])
    return Inspection(tuple(problems), tuple(path for path, _ in whole), tuple(groups))


def _look_at(path: Path) -> Likeness | UserError:
    try:
        return likeness(path, load_image(path))
    except UserError as error:
        return error
