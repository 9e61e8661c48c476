"""Pictures that drawing begins with: img2img and inpainting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.options.fields import option, refuse

DEFAULT_STRENGTH = 0.8  # sd-scripts' own


@dataclass(frozen=True)
class OriginalOptions:
    """Pictures from pictures."""

    image_path: Path | None = option(
        None,
        "picture to begin with, or of which a part is painted anew, or a folder of pictures, which prompts "
        "take in turn; --i of a prompt comes first. Without --prompt and --from_file its own prompt, of its "
        "text, is drawn",
        metavar="PATH",
    )
    mask_path: Path | None = option(
        None,
        "mask of the picture, white where it is painted anew, or a folder of masks (default: where the "
        "picture is transparent); without a picture, where the parts of a prompt between ANDs count: red the "
        "first, green the second, blue the third",
        metavar="PATH",
    )
    strength: float | None = option(
        None,
        "how much of the picture is changed: 0 nothing, 1 everything (default 0.8; of inpainting models 1)",
        metavar="X",
    )

    def __post_init__(self) -> None:
        refuse(
            (self.strength is not None and not 0 <= self.strength <= 1, "strength", "must be from 0 to 1"),
        )
