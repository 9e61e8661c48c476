"""The names of distributions of timesteps, and the numbers that each has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from library.options.fields import Check
from library.wording import shortened

Name = Literal[
    "uniform", "logit_normal", "mode", "cosine", "beta", "laplace", "log_snr", "sigmoid_curve", "parabola",
    "exponential",
]  # fmt: skip
ARGS = "timestep_distribution_args"

_MOST_MODE = 2 / (math.pi - 2)  # beyond it the density of mode is below 0 somewhere
_LARGEST = 100.0  # more is a typing mistake, and beyond what floating point can tell apart


@dataclass(frozen=True)
class Number:
    """One that a distribution has.

    default: None: it must be given.
    least, most: its bounds.
    """

    default: float | None
    least: float = -_LARGEST
    most: float = _LARGEST


_POSITIVE = 1e-3
NUMBERS: dict[str, dict[str, Number]] = {
    "logit_normal": {"mean": Number(0.0), "std": Number(1.0, _POSITIVE)},
    "mode": {"scale": Number(1.29, -1.0, _MOST_MODE)},
    "beta": {"alpha": Number(2.0, _POSITIVE), "beta": Number(2.0, _POSITIVE)},
    "laplace": {"mean": Number(0.0), "scale": Number(0.5, _POSITIVE)},
    "log_snr": {"mean": Number(-6.0), "std": Number(2.0, _POSITIVE)},
    "sigmoid_curve": {"weight": Number(None), "centre": Number(0.5)},
    "parabola": {"weight": Number(None), "centre": Number(0.5)},
    "exponential": {"rate": Number(None)},
}


def read_numbers(name: str, words: Sequence[str]) -> dict[str, float]:
    """What --timestep_distribution_args say of a distribution, with its defaults. Raises ValueError with the
    mistake.
    """
    known = NUMBERS.get(name, {})
    found = {key: number.default for key, number in known.items()}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"expects name=value, got {shortened(repr(word))}")
        if key not in known:
            raise ValueError(f"{name} has no {shortened(repr(key))}; it has {', '.join(known) or 'none'}")
        found[key] = _read(key, text, known[key])
    numbers = {key: value for key, value in found.items() if value is not None}
    if missing := found.keys() - numbers.keys():
        raise ValueError(f"{name} needs {min(missing)}=X")
    if name == "parabola" and not _is_somewhere(**numbers):
        raise ValueError("leaves no timestep: the parabola is below 0 everywhere")
    return numbers


def _read(key: str, text: str, number: Number) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not number.least <= value <= number.most:
        raise ValueError(
            f"{key} expects a number from {number.least:g} to {number.most:g}, got {shortened(repr(text))}"
        )
    return value


def _is_somewhere(weight: float, centre: float) -> bool:
    """Whether the density of a parabola is above 0 anywhere in 0..1."""
    nearest = min(max(centre, 0.0), 1.0)
    return 2 - weight * (nearest - centre) ** 2 > 0


def number_checks(name: str, words: Sequence[str]) -> list[Check]:
    """The checks of --timestep_distribution_args."""
    try:
        read_numbers(name, words)
    except ValueError as error:
        return [(True, ARGS, str(error))]
    return []
