"""Hints: the pictures beside a prompt that networks of control are shown (edges, depth, a pose)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from library.data.pictures.images import load_image, resize
from library.data.scan.folders import is_image_name, list_folder
from library.generation.request import PromptRequest
from library.problems import Problems, UserError, warn

# How far the sides of a hint may be from those of its picture before it is seen to be stretched.
ASPECT_TOLERANCE = 0.01


def check_hints(requests: Iterable[PromptRequest]) -> None:
    """Raises UserError with every hint that is missing or cannot be decoded."""
    problems = Problems()
    for path in dict.fromkeys(path for request in requests for path in request.hints):
        problems.attempt(load_image, path)
    problems.raise_if_any()


def read_hints(request: PromptRequest) -> list[np.ndarray]:
    """The request's hints, each uint8 (height, width, 3) of the picture's size.

    Raises UserError when one cannot be decoded.
    """
    size = request.width, request.height
    return [_fitted(path, load_image(path), size) for path in request.hints]


def _fitted(path: Path, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    (width, height), (given_width, given_height) = size, image.size
    if abs(given_width * height / (given_height * width) - 1) > ASPECT_TOLERANCE:
        _warn_of_stretching(path, f"{given_width}x{given_height}", f"{width}x{height}")
    return resize(image, size, "lanczos")


@cache  # once for each
def _warn_of_stretching(path: Path, given: str, wanted: str) -> None:
    warn(f"{path} is {given} and stretched to the picture's {wanted}; give it the same aspect ratio")


def hint_files(given: Sequence[Path]) -> list[Path]:
    """The pictures that are meant by files and folders; those of a folder by name.

    Raises UserError when a folder cannot be read or has none.
    """
    problems, found = Problems(), list[Path]()
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        entries = list_folder(path, "--guide_image_path", problems) or []
        pictures = [Path(e.path) for e in entries if is_image_name(e.name) and not e.is_dir()]
        if not pictures and not problems.found:
            problems.add(f"--guide_image_path {path}", "holds no pictures")
        found += pictures
    problems.raise_if_any()
    return found


def with_hints(
    requests: Sequence[PromptRequest], given: Sequence[Path], networks: int
) -> list[PromptRequest]:
    """The requests with the pictures of --guide_image_path; those with hints of their own keep them.

    given: one for everything; or one for each network; or, prompt by prompt, one for each network; or one for
        each prompt.
    networks: how many take hints.
    Raises UserError when there are too few.
    """
    files, prompts, networks = hint_files(given), len(requests), max(1, networks)
    if len(files) in (1, networks):
        shares = [tuple(files)] * prompts
    else:
        each = networks if len(files) >= networks * prompts else 1
        shares = [tuple(files[place * each : (place + 1) * each]) for place in range(prompts)]
        if len(files) < each * prompts:
            cause = f"has {len(files)} pictures for {prompts} prompts"
            raise UserError.of("--guide_image_path", cause, "give one for all, or one for each prompt")
        if len(files) > each * prompts:
            warn(f"--guide_image_path: the last {len(files) - each * prompts} pictures belong to no prompt")
    return [
        request if request.hints else request.with_hints(share)
        for request, share in zip(requests, shares, strict=True)
    ]
