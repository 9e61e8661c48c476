"""Pictures of which an inpainting model paints a part anew, and the part: a mask. Imports no torch until
something is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from library.data.buckets import Size, cover
from library.data.pictures.holes import holes_from_alpha, holes_from_mask, random_holes
from library.data.pictures.images import Geometry, check_hint, check_holes, load_image, load_rgba, place
from library.generation.hints import hint_files
from library.generation.request import PromptRequest
from library.options.generation import GeneratorInpaintingOptions
from library.problems import Problems, UserError
from library.randomness import keyed_random

if TYPE_CHECKING:
    from torch import Tensor

    from library.models.base import Model

SIDES = 32  # sides of pictures to paint on are multiples of it where no size is asked for, as in sd-scripts


class Original(NamedTuple):
    """What is painted on, in the size of the request.

    pixels: uint8 (height, width, 3).
    holes: bool (height, width), where it is painted anew.
    """

    pixels: np.ndarray
    holes: np.ndarray


def check_originals(requests: Iterable[PromptRequest], *, draws_masks: bool = True) -> None:
    """Raises UserError with every picture and mask that is missing, cannot be used or does not belong to the
    other.

    draws_masks: whether a picture without a mask gets a random one; else that is a problem.
    """
    problems = Problems()
    for image, mask in dict.fromkeys((request.image, request.mask) for request in requests):
        if image is not None:
            problems.attempt(_check, image, mask, draws_masks)
        elif mask is not None:
            problems.add(mask, "is a mask without a picture", "give the picture with --i or --image_path")
    problems.raise_if_any()


def read_original(request: PromptRequest) -> Original | None:
    """The request's picture and what of it is painted anew; None where it has none, and all is painted.

    Without a mask the picture's transparent part is, or a random part, drawn by the request's seed. Both are
    resized to cover the request's size, and cropped to it around the middle.
    Raises UserError when one cannot be decoded.
    """
    if request.image is None:
        return None
    size = request.width, request.height
    image, alpha = load_rgba(request.image)
    pixels = _fitted(image, size)
    if request.mask is not None:
        mask = load_image(request.mask)
        check_hint(image.size, mask.size, request.mask, request.image)
        return Original(pixels, holes_from_mask(_fitted(mask, size)))
    if alpha is not None and (holes := holes_from_alpha(_fitted(alpha, size))).any():
        return Original(pixels, holes)
    return Original(pixels, random_holes(size, keyed_random(request.chosen_seed, "holes")))


def input_beside(model: Model, originals: Sequence[Original | None], size: Size) -> Tensor:
    """What an inpainting model is given beside the noisy latents, (pictures, 1 + channels, h, w) float32 on
    its device. Where there is no original, everything is a hole.

    size: (width, height) of the pictures.
    """
    import torch

    from library.models.inpainting import masked_input

    weight = next(model.vae.parameters())
    everything = Original(np.zeros((*size[::-1], 3), np.uint8), np.ones(size[::-1], bool))
    whole = [original or everything for original in originals]
    pixels = torch.from_numpy(np.stack([one.pixels for one in whole])).permute(0, 3, 1, 2).float() / 127.5 - 1
    holes = torch.from_numpy(np.stack([one.holes for one in whole])).unsqueeze(1).float()
    with torch.autocast(weight.device.type, enabled=False):
        return torch.cat(
            [
                masked_input(model, picture.to(weight.device), hole.to(weight.device)).float()
                for picture, hole in zip(pixels.split(1), holes.split(1), strict=True)
            ]
        )


def paste_back(drawn: Image.Image, original: Original) -> Image.Image:
    """The picture with the original's own pixels wherever it was not to be painted anew."""
    return Image.fromarray(np.where(original.holes[..., None], np.asarray(drawn), original.pixels))


def with_originals(
    requests: Sequence[PromptRequest], options: GeneratorInpaintingOptions
) -> list[PromptRequest]:
    """The requests with the pictures and masks of --image_path and --mask_path in turn; those with pictures
    of their own keep them. Raises UserError when there are not as many masks as pictures.
    """
    if options.image_path is None:
        return list(requests)
    images = hint_files([options.image_path], "--image_path")
    masks = hint_files([options.mask_path], "--mask_path") if options.mask_path else [None]
    if len(masks) not in (1, len(images)):
        cause = f"has {len(masks)} masks for {len(images)} pictures"
        raise UserError.of("--mask_path", cause, "give one for all, or one for each, by name in their order")
    return [
        request
        if request.image is not None
        else replace(request, image=images[place % len(images)], mask=masks[place % len(images) % len(masks)])
        for place, request in enumerate(requests)
    ]


def with_sizes(requests: Sequence[PromptRequest], side: int) -> list[PromptRequest]:
    """The requests with sizes where they have none (0): those of their pictures, down to multiples of SIDES,
    or else the model's. Raises UserError when a picture cannot be decoded.

    side: of the model's pictures, in pixels.
    """

    def sized(request: PromptRequest) -> PromptRequest:
        width, height = side, side
        if request.image is not None and not (request.width and request.height):
            width, height = (max(SIDES, own // SIDES * SIDES) for own in load_image(request.image).size)
        return replace(request, width=request.width or width, height=request.height or height)

    return [sized(request) for request in requests]


def _check(image: Path, mask: Path | None, draws_masks: bool) -> None:
    """Raises UserError when a picture and its mask cannot be used."""
    picture, alpha = load_rgba(image)
    if mask is not None:
        check_hint(picture.size, load_image(mask).size, mask, image)
        check_holes(mask, is_alpha=False)
    elif not draws_masks and (alpha is None or not holes_from_alpha(np.asarray(alpha)).any()):
        cause = "has no mask and no transparent part: nothing says what to paint anew"
        raise UserError.of(
            image, cause, "give --mask_path or the prompt's --mask, white where it is to be anew"
        )


def _fitted(image: Image.Image, size: Size) -> np.ndarray:
    """Resized to cover the size, and cropped to it around the middle."""
    covering = cover(image.size, size)
    corner = ((covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2)
    return place(image, Geometry(covering, corner, size))
