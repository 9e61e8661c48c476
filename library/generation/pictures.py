"""Files of pictures, with their settings in them. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from library.files import whole_file
from library.generation.request import PromptRequest


def picture_name(timestamp: str, number: int, seed: int) -> str:
    """A picture's file name, sd-scripts' own: im_20240131235959_000_42.png."""
    return f"im_{timestamp}_{number:03d}_{seed}.png"


def save_picture(path: Path, picture: Image, request: PromptRequest, *, is_told_sizes: bool = False) -> None:
    """Write a PNG, whole or not at all, with the request in its text chunks.

    is_told_sizes: whether the model was told the request's sizes.
    """
    text = PngInfo()
    text.add_text("prompt", request.prompt)
    text.add_text("seed", str(request.seed))
    text.add_text("sampler", request.sampler)
    text.add_text("steps", str(request.steps))
    text.add_text("scale", str(request.scale))
    text.add_text("negative-prompt", request.negative)
    if request.strengths:
        text.add_text("network-multipliers", ", ".join(f"{strength:g}" for strength in request.strengths))
    if request.hints:
        text.add_text("control-image", ", ".join(path.name for path in request.hints))
    for name, path_ in (("original-image", request.image), ("mask-image", request.mask)):
        if path_ is not None:
            text.add_text(name, path_.name)
    if is_told_sizes:
        height, width, top, left, *_ = request.sizes
        told = {"original-height": height, "original-width": width, "crop-top": top, "crop-left": left}
        height, width, *_ = request.sizes_negative
        told |= {"original-height-negative": height, "original-width-negative": width}
        for name, value in told.items():
            text.add_text(name, str(value))
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=text)
