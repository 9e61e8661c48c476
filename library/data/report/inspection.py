"""Decodes every picture of a dataset to find those that are damaged, alike, transparent or animated."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from library.console import progress_bar
from library.data.pictures.images import has_more_frames, load_rgba
from library.data.report.lookalikes import Group, Likeness, find_groups, likeness
from library.problems import Problem, UserError


@dataclass(frozen=True)
class Inspection:
    """What decoding every picture found.

    problems: of the files that cannot be decoded.
    pictures: the files that can, without conditioning images.
    alike: groups of pictures that look the same; members are indices of `pictures`.
    transparent: pictures with an alpha channel that is not opaque throughout.
    animated: pictures with more than one frame.
    """

    problems: tuple[Problem, ...]
    pictures: tuple[Path, ...]
    alike: tuple[Group, ...]
    transparent: tuple[Path, ...] = ()
    animated: tuple[Path, ...] = ()


def inspect_pictures(pictures: Iterable[Path], hints: Iterable[Path] = ()) -> Inspection:
    """Decode every file once, in threads, with a progress bar.

    hints: conditioning images; they are decoded too, but may be alike, transparent or animated.
    """
    compared = dict.fromkeys(pictures)
    files = list(dict.fromkeys([*compared, *hints]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = pool.map(_look_at, files)
        results = list(progress_bar(looked, "decoding", len(files), leave=False, unit="img", delay=1))
    problems = [problem for seen in results if isinstance(seen, UserError) for problem in seen.problems]
    found = zip(files, results, strict=True)
    whole = {path: seen for path, seen in found if isinstance(seen, _Seen) and path in compared}
    return Inspection(
        tuple(problems),
        tuple(whole),
        tuple(find_groups([seen.likeness for seen in whole.values()])),
        transparent=tuple(path for path, seen in whole.items() if seen.is_transparent),
        animated=tuple(path for path, seen in whole.items() if seen.is_animated),
    )


class _Seen(NamedTuple):
    likeness: Likeness
    is_transparent: bool
    is_animated: bool


def _look_at(path: Path) -> _Seen | UserError:
    try:
        image, alpha = load_rgba(path)
        is_transparent = alpha is not None and bool((np.asarray(alpha) < 255).any())
        return _Seen(likeness(path, image), is_transparent, has_more_frames(path))
    except UserError as error:
        return error
