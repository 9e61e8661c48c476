"""The names of distributions of timesteps, and the numbers that each has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from library.options.fields import Check
from library.wording import shortened

Sampling = Literal[
    "uniform", "sigma", "sigmoid", "shift", "logit_normal", "mode", "cosine", "beta", "laplace", "log_snr",
    "sigmoid_curve", "parabola", "exponential",
]  # fmt: skip
WeightingScheme = Literal["none", "uniform", "logit_normal", "mode", "cosmap", "sigma_sqrt"]

MOST_MODE = 2 / (math.pi - 2)  # beyond it the density is below 0 somewhere
ARGS = "timestep_sampling_args"


@dataclass(frozen=True)
class Distribution:
    """One, as options name it.

    name: of its quantile function.
    settings: its numbers.
    """

    name: str
    settings: tuple[tuple[str, float], ...] = ()


# The numbers of each that are given by --timestep_sampling_args; None: without a default.
ARGUMENTS: dict[str, dict[str, float | None]] = {
    "beta": {"alpha": 2.0, "beta": 2.0},
    "laplace": {"mean": 0.0, "scale": 0.5},
    "log_snr": {"mean": -6.0, "std": 2.0},
    "sigmoid_curve": {"weight": None, "centre": 0.5},
    "parabola": {"weight": None, "centre": 0.5},
    "exponential": {"rate": None},
}
_ABOVE_ZERO = {("beta", "alpha"), ("beta", "beta"), ("laplace", "scale"), ("log_snr", "std")}
_LARGEST = 100.0  # more is a typing mistake, and beyond what floating point can tell apart


def read_arguments(sampling: str, words: Sequence[str]) -> dict[str, float]:
    """What --timestep_sampling_args say of a distribution, with its defaults. Raises ValueError with the
    mistake.
    """
    found = dict(ARGUMENTS.get(sampling, {}))
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"expects name=value, got {shortened(repr(word))}")
        if name not in found:
            known = ", ".join(found) or "none"
            raise ValueError(f"{sampling} has no {shortened(repr(name))}; it has {known}")
        found[name] = _number(sampling, name, text)
    if missing := [name for name, value in found.items() if value is None]:
        raise ValueError(f"{sampling} needs {missing[0]}=X")
    return {name: value for name, value in found.items() if value is not None}


def _number(sampling: str, name: str, text: str) -> float:
    is_positive = (sampling, name) in _ABOVE_ZERO
    expected = (
        f"{name} expects a number {'above 0' if is_positive else f'from -{_LARGEST:g}'} to {_LARGEST:g}"
    )
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST or (is_positive and value <= 0):
        raise ValueError(f"{expected}, got {shortened(repr(text))}")
    return value


def density_of_parabola_is_somewhere(settings: Mapping[str, float]) -> bool:
    """Whether its density is above 0 anywhere in 0..1."""
    nearest = min(max(settings["centre"], 0.0), 1.0)
    return 2 - settings["weight"] * (nearest - settings["centre"]) ** 2 > 0


def argument_checks(sampling: str, words: Sequence[str]) -> list[Check]:
    """The checks of --timestep_sampling_args."""
    if words and sampling not in ARGUMENTS:
        return [(True, ARGS, f"--timestep_sampling {sampling} has none")]
    try:
        settings = read_arguments(sampling, words)
    except ValueError as error:
        return [(True, ARGS, str(error))]
    is_nowhere = sampling == "parabola" and not density_of_parabola_is_somewhere(settings)
    return [(is_nowhere, ARGS, "leaves no timestep: the parabola is below 0 everywhere in 0 to 1")]
