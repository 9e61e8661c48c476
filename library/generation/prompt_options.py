"""The options a prompt line may have: one table for previews while training, one for the generator.

A row gives, for an option's name, the function that writes its text into a request; the function raises
ValueError with what it expects. Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from library.generation.dynamic import Find as FindLines
from library.generation.large_options import large_options
from library.generation.large_pictures import DeepShrink, GradualLatent
from library.generation.network_words import Find
from library.generation.request import PromptRequest
from library.network.block_weights import named_block_weights
from library.options.multipliers import Multiplier, read_multiplier
from library.options.samplers import read_sampler
from library.paths import user_path
from library.problems import warn_idle

MAX_STEPS = 1000  # the models know this many timesteps
MAX_SEED = 2**64 - 1  # of torch's generators
MAX_SIDE = 2**16  # pixels; more is a typing mistake
OTHER_FORMATS = (".bmp", ".gif", ".tif", ".tiff", ".avif", ".jxl")  # that no pictures are written in
LEAST_SIDE = 64  # pixels, of a preview: sd-scripts' own

_BLOCK_NUMBERS = re.compile(r"lbw=\s*[-+.\d]", re.IGNORECASE)
_SHRINK, _GRADUAL = DeepShrink(), GradualLatent()
Writer = Callable[[PromptRequest, str], PromptRequest]  # the request with an option's text in it


@dataclass(frozen=True)
class PromptSyntax:
    """The options a prompt may have.

    options: what each does to a request, by its name without dashes.
    not_yet: those of sd-scripts that are refused as not available yet.
    keys: of prompts in TOML and JSON files -> the option that means the same. Without any, there are no such
        files.
    find_network: finds networks that prompts name; None: these names are text.
    find_wildcard: finds the lines that `__name__` stands for; None: it is text.
    has_folders: whether options of the command name folders of networks and wildcards.
    is_lenient: whether options that are wrong are left out with a warning; else they are errors.
    """

    options: dict[str, Writer]
    not_yet: frozenset[str]
    keys: dict[str, str] = field(default_factory=dict)
    has_folders: bool = False
    is_lenient: bool = False
    find_network: Find | None = None
    find_wildcard: FindLines | None = None


def training_syntax(pixel_multiple: int) -> PromptSyntax:
    """Of previews. Sizes are rounded down to what the model takes, as sd-scripts does; no mistake in a prompt
    stops a run.

    pixel_multiple: what the sides of pictures are multiples of, see LatentSpace.
    """
    return PromptSyntax(
        options={
            **_SHARED,
            **large_options(_SHRINK, _GRADUAL),
            "w": lambda request, text: replace(request, width=_rounded_side(text, pixel_multiple)),
            "h": lambda request, text: replace(request, height=_rounded_side(text, pixel_multiple)),
            "d": lambda request, text: replace(request, seed=_seed(text)),
            "ss": lambda request, text: replace(request, sampler=_sampler(text)),
        },
        not_yet=frozenset({"g", "ctr", "rcfg", "fs"}),
        keys={
            "negative_prompt": "n",
            "width": "w",
            "height": "h",
            "sample_steps": "s",
            "scale": "l",
            "seed": "d",
            "sample_sampler": "ss",
            "controlnet_image": "cn",
            "image": "i",
            "strength": "t",
            "mask": "mask",
            "network_multiplier": "am",
            "negative_scale": "nl",
            "original_width": "ow",
            "original_height": "oh",
            "original_width_negative": "nw",
            "original_height_negative": "nh",
            "crop_top": "ct",
            "crop_left": "cl",
            "guidance_scale": "g",
            "cfg_trunc_ratio": "ctr",
            "renorm_cfg": "rcfg",
            "flow_shift": "fs",
        },
        is_lenient=True,
    )


def generator_syntax(
    pixel_multiple: int,
    find_network: Find | None = None,
    find_wildcard: FindLines | None = None,
    *,
    shrink: DeepShrink = _SHRINK,
    gradual: GradualLatent = _GRADUAL,
) -> PromptSyntax:
    """Of the generator, which takes only sizes that the model can draw, and several seeds.

    pixel_multiple: what the sides of pictures are multiples of, see LatentSpace.
    shrink, gradual: what a prompt that says one thing of either takes for the others.
    """
    return PromptSyntax(
        options={
            **_SHARED,
            **large_options(shrink, gradual),
            "w": lambda request, text: replace(request, width=_exact_side(text, pixel_multiple)),
            "h": lambda request, text: replace(request, height=_exact_side(text, pixel_multiple)),
            "d": _write_seeds,
            "ss": lambda request, text: replace(request, sampler=_sampler(text)),
            "f": lambda request, text: replace(request, file=_file_name(text)),
        },
        not_yet=frozenset(),
        has_folders=True,
        find_network=find_network,
        find_wildcard=find_wildcard,
    )


def _whole_number(text: str, low: int, high: int, expected: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= 100  # Python reads up to 4,300 digits
    if not is_number or not low <= int(text) <= high:
        raise ValueError(expected)
    return int(text)


def _rounded_side(text: str, multiple: int) -> int:
    side = max(LEAST_SIDE, _whole_number(text, 0, MAX_SIDE, "a size in pixels"))
    return side // multiple * multiple


def _exact_side(text: str, multiple: int) -> int:
    expected = f"a size in pixels, a multiple of {multiple}"
    side = _whole_number(text, multiple, MAX_SIDE, expected)
    if side % multiple:
        raise ValueError(expected)
    return side


def _original_side(text: str) -> int:
    return _whole_number(text, 1, MAX_SIDE, "a size in pixels")


def _crop(text: str) -> int:
    return _whole_number(text, 0, MAX_SIDE, "a number of pixels")


def _steps(text: str) -> int:
    return _whole_number(text, 1, MAX_STEPS, f"a whole number from 1 to {MAX_STEPS}")


def _seed(text: str) -> int:
    return _whole_number(text, 0, MAX_SEED, "a whole number of 0 or more")


def _write_seeds(request: PromptRequest, text: str) -> PromptRequest:
    first, *more = (_seed(part.strip()) for part in text.split(","))
    return replace(request, seed=first, more_seeds=tuple(more))


def _ignore_clip_prompt(request: PromptRequest, _: str) -> PromptRequest:
    warn_idle("--c of prompts", "there is no guidance by CLIP")
    return request


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise ValueError("a number")
    return scale


def _negative_scale(text: str) -> float | None:
    expected = "a number of 0 or more, or none"
    if text.lower() == "none":
        return None
    try:
        scale = _scale(text)
    except ValueError:
        scale = -1.0
    if scale < 0:
        raise ValueError(expected)
    return scale


def _unquoted(text: str) -> str:
    """A name without quotes around it, which a command line needs and a prompt does not."""
    is_quoted = len(text) > 2 and text[0] == text[-1] == '"'
    return text[1:-1] if is_quoted else text


def _sampler(text: str) -> str:
    try:
        return read_sampler(_unquoted(text))
    except ValueError as error:
        raise ValueError(str(error).removeprefix("expects ").partition(", got")[0]) from None


def _strengths(text: str) -> tuple[Multiplier, ...]:
    """With commas between, or semicolons, as lists of block weights have commas themselves."""
    is_list = ";" in text or _BLOCK_NUMBERS.search(text)
    try:
        found = tuple(map(read_multiplier, text.split(";" if is_list else ",")))
    except ValueError:
        expected = "a number for each network, with commas between, or such as 0.8:lbw=OUTALL"
        raise ValueError(f"{expected}; with numbers by block, semicolons between") from None
    for one in found:
        if one.blocks:
            try:
                named_block_weights(one.blocks)
            except ValueError as error:
                raise ValueError(str(error).removeprefix("expects ")) from None
    return found


def _strength(text: str) -> float:
    expected = "a number from 0 to 1"
    try:
        strength = float(text)
    except ValueError:
        raise ValueError(expected) from None
    if not 0 <= strength <= 1:
        raise ValueError(expected)
    return strength


def _file_name(text: str) -> str:
    """A name inside the run's folder, with slashes between folders."""
    name = _unquoted(text).replace("\\", "/")
    parts = name.split("/")
    is_inside = all(part.strip(" .") for part in parts) and not set(name) & set('<>:"|?*\0')
    if not is_inside or len(name) > 200:
        raise ValueError("a file name inside --outdir")
    if Path(name).suffix.lower() in OTHER_FORMATS:
        raise ValueError("a name that ends in .png, .webp or .jpg, or in none")
    return name


def _picture(text: str) -> Path:
    expected = "the path of a picture"
    if not text:
        raise ValueError(expected)
    try:
        return user_path(_unquoted(text))
    except ValueError:
        raise ValueError(expected) from None


_SHARED: dict[str, Writer] = {
    "n": lambda request, text: replace(request, negative=text),
    "l": lambda request, text: replace(request, scale=_scale(text)),
    "nl": lambda request, text: replace(request, negative_scale=_negative_scale(text)),
    "s": lambda request, text: replace(request, steps=_steps(text)),
    "am": lambda request, text: replace(request, strengths=_strengths(text)),
    "c": _ignore_clip_prompt,
    "ow": lambda request, text: replace(request, original_width=_original_side(text)),
    "oh": lambda request, text: replace(request, original_height=_original_side(text)),
    "nw": lambda request, text: replace(request, original_width_negative=_original_side(text)),
    "nh": lambda request, text: replace(request, original_height_negative=_original_side(text)),
    "ct": lambda request, text: replace(request, crop_top=_crop(text)),
    "cl": lambda request, text: replace(request, crop_left=_crop(text)),
    "cn": lambda request, text: request.with_hints((_picture(text),)),
    "i": lambda request, text: replace(request, image=_picture(text)),
    "img": lambda request, text: replace(request, image=_picture(text)),
    "mask": lambda request, text: replace(request, mask=_picture(text)),
    "t": lambda request, text: replace(request, strength=_strength(text)),
}
