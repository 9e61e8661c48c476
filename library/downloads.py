"""What failed downloads leave in the place of a file."""

from __future__ import annotations

from pathlib import Path

from library.problems import UserError


def not_the_file(path: Path) -> UserError | None:
    """The error for a file that is not there, or what a failed download left instead; None for any other."""
    if not path.is_file():
        return UserError.of(path, "is a folder, not a file" if path.is_dir() else "there is no such file")
    with path.open("rb") as file:
        start = file.read(200).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return UserError.of(
            path, "is a Git LFS pointer, not the file itself", "run git lfs pull, or download it"
        )
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return UserError.of(
            path, "is a web page, not the file itself", "log in where it comes from, and download it again"
        )
    return None
