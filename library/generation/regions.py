"""Regions: where in a picture each part of a prompt counts, and the networks that belong to it. Imports no
torch until something is drawn.

The mask is sd-scripts': a picture whose red, green and blue channels say how strongly the first, second and
third part count, or whose colours do: that of part n has red, green and blue where n has the bits 1, 2 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from library.data.pictures.images import load_image
from library.generation.editing import sub_prompts
from library.generation.hints import hint_files
from library.generation.request import PromptRequest, Regions
from library.problems import Problems, UserError
from library.wording import counted, shortened

CHANNELS, MOST_CODES = 3, 7
CODES = "--network_regional_mask_max_color_codes"


@dataclass(frozen=True)
class RegionSettings:
    """What a command line says of regions.

    mask: of prompts that have none of their own, or a folder, whose first picture it is; None: none.
    codes: how many colours are parts; None: channels are.
    networks: how many networks there are beside the weights; the first belongs to the first part, and so on.
    why_not: why networks have no regions; "" if they have.
    """

    mask: Path | None = None
    codes: int | None = None
    networks: int = 0
    why_not: str = ""


def with_regions(requests: Sequence[PromptRequest], settings: RegionSettings) -> list[PromptRequest]:
    """The requests with regions where their prompts have parts and there is a mask, but no picture that it
    could be of.

    Raises UserError with every mask that cannot be used, and every prompt with fewer parts than networks, or
    with networks and one part, which has no region.
    """
    problems, found = Problems(), []
    usual = hint_files([settings.mask], "--mask_path")[0] if settings.mask is not None else None
    for request in requests:
        mask, count = request.mask or usual, len(sub_prompts(request.prompt))
        where = f"prompt {shortened(request.prompt, 40)!r}"
        if mask is None or request.image is not None or count == 1:
            found.append(request)
            if mask is not None and request.image is None and settings.networks:
                fix = "write AND between the parts, or leave --mask_path out"
                problems.add(where, "has one part, so that the mask gives no network a region", fix)
            continue
        regions = Regions(mask, settings.codes, settings.networks)
        found.append(replace(request, mask=None, regions=regions))
        if settings.networks > count:
            cause = f"has {counted(count, 'part')} for {counted(settings.networks, 'network')}"
            problems.add(where, cause, "write AND between the parts, one for each network")
    for regions, count in _different(found):
        if settings.why_not:
            problems.add(settings.why_not, "networks have no regions with it", "leave it out")
        problems.attempt(masks_of, regions, count)
    problems.raise_if_any()
    return found


def masks_of(regions: Regions, parts: int) -> np.ndarray:
    """Where each part of a prompt counts, (parts, height, width) float32 in 0..1, in the mask's own size.

    A part's channel that is black everywhere: everywhere if it has a network. Parts behind those that have a
    channel of their own share what these leave, or count everywhere if that is nothing.

    Raises UserError when the mask cannot be read or does not say where a network's part is.
    """
    image = load_image(regions.mask)
    pixels = np.asarray(image.convert("RGB"))
    own = _by_code(regions, pixels, parts) if regions.codes else _by_channel(regions, pixels, parts)
    left = np.clip(1 - sum(own, np.zeros(pixels.shape[:2], np.float32)), 0, 1)
    rest = left if left.any() else np.ones_like(left)
    return np.stack([*own, *[rest] * (parts - len(own))]).astype(np.float32)


def _by_channel(regions: Regions, pixels: np.ndarray, parts: int) -> list[np.ndarray]:
    if regions.networks > CHANNELS:
        cause = f"has {CHANNELS} channels for {regions.networks} networks"
        raise UserError.of(regions.mask, cause, f"paint a colour for each, and give {CODES}")
    channels = [pixels[..., number].astype(np.float32) / 255 for number in range(min(parts, CHANNELS))]
    if regions.networks:
        return [one if one.any() else np.ones_like(one) for one in channels[: regions.networks]]
    while channels and not channels[-1].any():  # the last parts share what the others leave
        channels.pop()
    return channels


def _by_code(regions: Regions, pixels: np.ndarray, parts: int) -> list[np.ndarray]:
    assert regions.codes is not None
    if regions.networks > regions.codes:
        cause = f"is {regions.codes}, but there are {regions.networks} networks"
        raise UserError.of(CODES, cause, f"give {regions.networks}, and paint as many colours")
    found = []
    for number in range(1, min(regions.networks or parts, regions.codes) + 1):
        colour = [255 if number & bit else 0 for bit in (1, 2, 4)]
        mask = (pixels == colour).all(-1).astype(np.float32)
        if not mask.any() and regions.networks:
            cause = f"has no pixel of the colour of part {number}, {tuple(colour)}"
            raise UserError.of(regions.mask, cause, "paint it without soft edges, in a file without loss")
        found.append(mask)
    while found and not found[-1].any():
        found.pop()
    return found


def _different(requests: Sequence[PromptRequest]) -> list[tuple[Regions, int]]:
    return list(
        dict.fromkeys(
            (request.regions, len(sub_prompts(request.prompt)))
            for request in requests
            if request.regions is not None
        )
    )
