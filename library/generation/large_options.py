"""The options of prompts for Deep Shrink and Gradual Latent. Each switches on what it is about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from library.generation.large_pictures import DeepShrink, GradualLatent, read_unsharp
from library.generation.request import PromptRequest

Writer = Callable[[PromptRequest, str], PromptRequest]


def large_options(shrink: DeepShrink, gradual: GradualLatent) -> dict[str, Writer]:
    """What each does to a request, by name. shrink, gradual: the values of all that a prompt does not say."""
    shrinks = {
        "dsd1": ("depth_1", _whole(0)),
        "dst1": ("timesteps_1", _whole(0)),
        "dsd2": ("depth_2", _whole(0)),
        "dst2": ("timesteps_2", _whole(0)),
        "dsr": ("ratio", _share),
    }
    grows: dict[str, tuple[str, Callable[[str], Any]]] = {
        "glt": ("timesteps", _whole(0)),
        "glr": ("ratio", _share),
        "gle": ("every_n_steps", _whole(1)),
        "gls": ("ratio_step", _share),
        "glsn": ("s_noise", _amount),
        "glus": ("unsharp", read_unsharp),
    }
    options: dict[str, Writer] = {
        name: _shrink_writer(field, read, shrink) for name, (field, read) in shrinks.items()
    }
    return options | {name: _gradual_writer(field, read, gradual) for name, (field, read) in grows.items()}


def _shrink_writer(field: str, read: Callable[[str], Any], usual: DeepShrink) -> Writer:
    def write(request: PromptRequest, text: str) -> PromptRequest:
        return replace(request, deep_shrink=replace(request.deep_shrink or usual, **{field: read(text)}))

    return write


def _gradual_writer(field: str, read: Callable[[str], Any], usual: GradualLatent) -> Writer:
    def write(request: PromptRequest, text: str) -> PromptRequest:
        return replace(request, gradual=replace(request.gradual or usual, **{field: read(text)}))

    return write


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
            raise ValueError(f"a whole number of {least} or more")
        return int(text)

    return read


def _share(text: str) -> float:
    number = _number(text)
    if not 0 < number <= 1:
        raise ValueError("a number above 0 and at most 1")
    return number


def _amount(text: str) -> float:
    number = _number(text)
    if not 0 <= number < math.inf:
        raise ValueError("a number of 0 or more")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
