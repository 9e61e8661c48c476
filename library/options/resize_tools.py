"""Options of the command that makes smaller copies of pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from library.options.fields import below, option, refuse


def _read_sizes(value: object) -> str:
    """Sizes such as 512x512,384x384. Raises ValueError."""
    parts = [part.strip().lower() for part in str(value).split(",")]
    if not all(re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", part) for part in parts):
        raise ValueError(f"expects sizes such as 512x512,384x384, got {str(value)[:60]!r}")
    return ",".join(parts)


@dataclass(frozen=True)
class ResizeOptions:
    """Smaller copies."""

    src_img_folder: Path = option(None, "folder of the pictures", positional=True)
    dst_img_folder: Path = option(None, "folder for the copies", positional=True)
    max_resolution: str = option(
        "512x512,384x384,256x256,128x128",
        "areas, of which each picture gets a copy of the same form at most as large",
        convert=_read_sizes,
        metavar="WxH,...",
    )
    divisible_by: int = option(1, "crop the copies to multiples of this", metavar="N")
    interpolation: Literal["area", "cubic", "lanczos4", "nearest", "linear", "box"] | None = option(
        None, "how pictures are scaled (default area)"
    )
    save_as_png: bool = option(False, "write PNGs, not JPEGs")
    copy_associated_files: bool = option(
        False, "copy what has a picture's name (captions, ...) under the names of its copies, too"
    )
    skip_existing: bool = option(False, "leave out copies that are there already")

    def __post_init__(self) -> None:
        refuse(
            (self.src_img_folder is None, "<src_img_folder>", "is needed: the folder of the pictures"),
            (self.dst_img_folder is None, "<dst_img_folder>", "is needed: the folder for the copies"),
            *below(1, self, "divisible_by"),
        )

    @property
    def areas(self) -> dict[str, int]:
        """The pixels of each size, by its name."""
        return {name: _area(name) for name in self.max_resolution.split(",")}


def _area(name: str) -> int:
    width, _, height = name.partition("x")
    return int(width) * int(height)
