"""The files of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from library.options.fields import option, refuse, warn_when

PictureFormat = Literal["png", "webp", "jpg"]


@dataclass(frozen=True)
class PictureFileOptions:
    """Files."""

    image_format: PictureFormat = option(
        "png", "what pictures are written as, with their settings in them; webp loses nothing, jpg a little"
    )
    sequential_file_name: bool = option(
        False, "name them im_000001.png, im_000002.png, ...; those of an earlier run are replaced"
    )
    use_original_file_name: bool = option(False, "name them as the picture of --image_path they began with")
    no_preview: bool = option(False, "accepted for compatibility: no window is opened")

    def __post_init__(self) -> None:
        refuse(
            (
                self.sequential_file_name and self.use_original_file_name,
                "use_original_file_name",
                "contradicts --sequential_file_name",
            )
        )
        warn_when((self.no_preview, "no_preview", "has no effect: no window is opened"))
