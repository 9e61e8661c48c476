"""The options a prompt line may have: one table for previews while training, one for the generator.

A row gives, for an option's name, the function that turns its text into fields of PromptRequest; the function
raises ValueError with what it expects. Imports no torch.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from library.options.generation import SamplerName

MAX_STEPS = 1000  # the models know this many timesteps
MAX_SEED = 2**64 - 1  # of torch's generators

Reader = Callable[[str], dict[str, Any]]


@dataclass(frozen=True)
class PromptSyntax:
    """The options a prompt line may have, and those of sd-scripts that are not there yet.

    keys: of prompts in TOML and JSON files -> the option that means the same.
    """

    options: dict[str, Reader]
    not_yet: frozenset[str]
    keys: dict[str, str] = field(default_factory=dict)


def _field(name: str, read: Callable[[str], Any]) -> Reader:
    return lambda text: {name: read(text)}


def _whole_number(text: str, low: int, high: int, expected: str) -> int:
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise ValueError(expected)
    return int(text)


def _floored_size(text: str) -> int:
    size = _whole_number(text, 0, 2**16, "a size in pixels")
    return max(64, size // 8 * 8)


def _exact_size(text: str) -> int:
    expected = "a size in pixels, a multiple of 8"
    size = _whole_number(text, 8, 2**16, expected)
    if size % 8:
        raise ValueError(expected)
    return size


def _told_size(text: str) -> int:
    return _whole_number(text, 1, 2**16, "a size in pixels")


def _told_crop(text: str) -> int:
    return _whole_number(text, 0, 2**16, "a number of pixels")


def _steps(text: str) -> int:
    return _whole_number(text, 1, MAX_STEPS, f"a whole number from 1 to {MAX_STEPS}")


def _seed(text: str) -> int:
    return _whole_number(text, 0, MAX_SEED, "a whole number of 0 or more")


def _seeds(text: str) -> dict[str, Any]:
    first, *more = (_seed(part.strip()) for part in text.split(","))
    return {"seed": first, "more_seeds": tuple(more)}


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise ValueError("a number")
    return scale


def _sampler(text: str) -> str:
    names = typing.get_args(SamplerName)
    if text.lower() not in names:
        raise ValueError(f"one of {', '.join(names)}")
    return text.lower()


_SHARED: dict[str, Reader] = {
    "n": _field("negative", str),
    "l": _field("scale", _scale),
    "s": _field("steps", _steps),
}

TRAINING = PromptSyntax(
    options=_SHARED
    | {
        "w": _field("width", _floored_size),
        "h": _field("height", _floored_size),
        "d": _field("seed", _seed),
        "ss": _field("sampler", _sampler),
    },
    not_yet=frozenset({"cn", "g", "ctr", "rcfg", "fs"}),
    keys={
        "negative_prompt": "n",
        "width": "w",
        "height": "h",
        "sample_steps": "s",
        "scale": "l",
        "seed": "d",
        "sample_sampler": "ss",
        "controlnet_image": "cn",
        "guidance_scale": "g",
        "cfg_trunc_ratio": "ctr",
        "renorm_cfg": "rcfg",
        "flow_shift": "fs",
    },
)

GENERATOR = PromptSyntax(
    options=_SHARED
    | {
        "w": _field("width", _exact_size),
        "h": _field("height", _exact_size),
        "d": _seeds,
        "ow": _field("original_width", _told_size),
        "oh": _field("original_height", _told_size),
        "nw": _field("original_width_negative", _told_size),
        "nh": _field("original_height_negative", _told_size),
        "ct": _field("crop_top", _told_crop),
        "cl": _field("crop_left", _told_crop),
    },
    not_yet=frozenset(
        {"t", "nl", "c", "am", "f"}
        | {"dsd1", "dst1", "dsd2", "dst2", "dsr", "glt", "glr", "gle", "gls", "glsn", "glus"}
    ),
)
