"""Pictures that are begun with, or of which a part is painted anew, and the part: a mask. Imports no torch
until something is drawn.
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
from library.generation.picture_texts import prompts_in
from library.generation.request import PromptRequest
from library.options.drawing_originals import DEFAULT_STRENGTH, OriginalOptions
from library.problems import Problems, UserError
from library.randomness import keyed_random

if TYPE_CHECKING:
    from torch import Tensor

    from library.models.base import Model

SIDES = 32  # sides of pictures to paint on are multiples of it where no size is asked for, as in sd-scripts


class Original(NamedTuple):
    """What is painted on, in the size of the request.

    pixels: uint8 (height, width, 3).
    holes: bool (height, width), where it is painted anew; None: everywhere.
    """

    pixels: np.ndarray
    holes: np.ndarray | None


def check_originals(requests: Iterable[PromptRequest], *, needs_masks: bool = False) -> None:
    """Raises UserError with every picture and mask that is missing, cannot be used or does not belong to the
    other.

    needs_masks: whether a picture without one is a problem.
    """
    problems = Problems()
    for image, mask in dict.fromkeys((request.image, request.mask) for request in requests):
        if image is not None:
            problems.attempt(_check, image, mask, needs_masks)
        elif mask is not None:
            problems.add(mask, "is a mask without a picture", "give the picture with --i or --image_path")
    problems.raise_if_any()


def strength_of(request: PromptRequest, *, is_inpainting: bool) -> float:
    """The share of the steps that a request goes: all without a picture, else as it says, else all of an
    inpainting model's, and DEFAULT_STRENGTH of others'.
    """
    if request.image is None:
        return 1.0
    usual = 1.0 if is_inpainting else DEFAULT_STRENGTH
    return usual if request.strength is None else request.strength


def read_original(request: PromptRequest, *, is_inpainting: bool = True) -> Original | None:
    """The request's picture and what of it is painted anew; None where it has none, and all is painted.

    Without a mask an inpainting model paints the picture's transparent part anew, or a random part, drawn by
    the request's seed; other models all of it. Both are resized to cover the request's size, and cropped to
    it around the middle.
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
    if not is_inpainting:
        return Original(pixels, None)
    if alpha is not None and (holes := holes_from_alpha(_fitted(alpha, size))).any():
        return Original(pixels, holes)
    return Original(pixels, random_holes(size, keyed_random(request.chosen_seed, "holes")))


def latents_of(model: Model, originals: Sequence[Original]) -> Tensor:
    """The originals' scaled latents (pictures, channels, h, w), float32 on the model's device: the means of
    the VAE's posteriors.
    """
    import torch

    weight = next(model.vae.parameters())
    found = []
    with torch.autocast(weight.device.type, enabled=False):
        for pixels in _as_tensor(originals).to(weight.device).split(1):
            height, width = pixels.shape[-2:]
            mean = pixels.new_zeros(1, *model.latent_space.shape(width, height))
            found.append(model.encode_images(pixels, mean).float())
    return torch.cat(found)


def latent_holes_of(model: Model, originals: Sequence[Original]) -> Tensor | None:
    """(pictures, 1, h, w) float32 on the model's device: 1 where a latent stands for a pixel that is painted
    anew, else 0. None where no original has holes.
    """
    import torch.nn.functional as F

    given = [original.holes for original in originals if original.holes is not None]
    if not given:
        return None
    pooled = F.max_pool2d(_as_masks(given), model.latent_space.pixels_per_latent)
    return pooled.to(next(model.vae.parameters()).device)


def input_beside(model: Model, originals: Sequence[Original | None], size: Size) -> Tensor:
    """What an inpainting model is given beside the noisy latents, (pictures, 1 + channels, h, w) float32 on
    its device. Where there is no original, everything is a hole.

    size: (width, height) of the pictures.
    """
    import torch

    from library.models.inpainting import masked_input

    weight = next(model.vae.parameters())
    everything = np.ones(size[::-1], bool)
    nothing = Original(np.zeros((*size[::-1], 3), np.uint8), everything)
    whole = [original or nothing for original in originals]
    pixels = _as_tensor(whole)
    holes = _as_masks([everything if one.holes is None else one.holes for one in whole])
    with torch.autocast(weight.device.type, enabled=False):
        return torch.cat(
            [
                masked_input(model, picture.to(weight.device), hole.to(weight.device)).float()
                for picture, hole in zip(pixels.split(1), holes.split(1), strict=True)
            ]
        )


def paste_back(drawn: Image.Image, original: Original) -> Image.Image:
    """The picture with the original's own pixels wherever it was not to be painted anew."""
    if original.holes is None:
        return drawn
    return Image.fromarray(np.where(original.holes[..., None], np.asarray(drawn), original.pixels))


def with_originals(requests: Sequence[PromptRequest], options: OriginalOptions) -> list[PromptRequest]:
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


def prompts_of_pictures(path: Path, defaults: PromptRequest) -> list[PromptRequest]:
    """A request for each picture of --image_path with the prompts that it was drawn with, as its text says,
    in the order in which `with_originals` hands them out.

    Raises UserError with every picture that says nothing of them.
    """
    problems, requests = Problems(), []
    for image in hint_files([path], "--image_path"):
        prompts = problems.attempt(prompts_in, image)
        if prompts is not None:
            requests.append(replace(defaults, prompt=prompts[0], negative=prompts[1]))
    problems.raise_if_any()
    return requests


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


def _check(image: Path, mask: Path | None, needs_masks: bool) -> None:
    """Raises UserError when a picture and its mask cannot be used."""
    picture, alpha = load_rgba(image)
    if mask is not None:
        check_hint(picture.size, load_image(mask).size, mask, image)
        check_holes(mask, is_alpha=False)
    elif needs_masks and (alpha is None or not holes_from_alpha(np.asarray(alpha)).any()):
        cause = "has no mask and no transparent part: nothing says what to paint anew"
        raise UserError.of(
            image, cause, "give --mask_path or the prompt's --mask, white where it is to be anew"
        )


def _as_tensor(originals: Sequence[Original]) -> Tensor:
    """(pictures, 3, height, width) in -1..1"""
    import torch

    pixels = np.stack([original.pixels for original in originals])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _as_masks(holes: Sequence[np.ndarray]) -> Tensor:
    """(pictures, 1, height, width) float32: 1 where one is, else 0."""
    import torch

    return torch.from_numpy(np.stack(holes)).unsqueeze(1).float()


def _fitted(image: Image.Image, size: Size) -> np.ndarray:
    """Resized to cover the size, and cropped to it around the middle."""
    covering = cover(image.size, size)
    corner = ((covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2)
    return place(image, Geometry(covering, corner, size))
