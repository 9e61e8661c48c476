"""Which pictures a run of the generator draws, with which seeds, and their files. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from library.files import whole_file
from library.generation.request import PromptRequest
from library.randomness import derive_seed


def plan_pictures(
    prompts: Sequence[PromptRequest], *, seed: int, n_iter: int = 1, images_per_prompt: int = 1
) -> list[PromptRequest]:
    """One request per picture, each with its seed, in the order of drawing: all prompts, n_iter times.

    A prompt's own seeds go to its first pictures. A run of one picture uses `seed` itself; otherwise a
    picture's seed (31 bits) depends only on `seed`, the prompt's place, the iteration and the picture's
    number within it.
    """
    alone = len(prompts) * n_iter * images_per_prompt == 1
    pictures = []
    for iteration in range(n_iter):
        for place, prompt in enumerate(prompts):
            for number in range(images_per_prompt):
                own = seeds_of(prompt)[iteration * images_per_prompt + number :]
                drawn = seed if alone else derive_seed(seed, "picture", iteration, place, number) % 2**31
                pictures.append(dataclasses.replace(prompt, seed=own[0] if own else drawn, more_seeds=()))
    return pictures


def seeds_of(prompt: PromptRequest) -> tuple[int, ...]:
    """The seeds that a prompt asks for, one per picture."""
    return () if prompt.seed is None else (prompt.seed, *prompt.more_seeds)


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
