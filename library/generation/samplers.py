"""Samplers: names users know and diffusers' schedulers that do the work."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import diffusers
import torch
from torch import Tensor

from library.models.base import PredictionType
from library.models.noise_schedule import DDIM_CONFIG, SCHEDULER_CONFIG, TRAIN_STEPS, terminal_settings
from library.problems import warn

_EULER = ("EulerDiscreteScheduler", SCHEDULER_CONFIG)
_EULER_A = ("EulerAncestralDiscreteScheduler", SCHEDULER_CONFIG)

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", DDIM_CONFIG),
    "euler": _EULER,
    "k_euler": _EULER,
    "euler_a": _EULER_A,
    "k_euler_a": _EULER_A,
    "dpmsolver++": ("DPMSolverMultistepScheduler", SCHEDULER_CONFIG | {"algorithm_type": "dpmsolver++"}),
}
_FLOW = ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": TRAIN_STEPS})

_PREDICTION_NAMES = {"epsilon": "epsilon", "v": "v_prediction"}


class Sampler:
    """The way from noise to a picture in `steps` steps. One object draws one batch.

    Flow models are drawn with Euler steps whatever the name; a line says so once.
    """

    def __init__(
        self, name: str, prediction_type: PredictionType, steps: int, *, zero_terminal_snr: bool = False
    ) -> None:
        """zero_terminal_snr: whether the model knows pure noise, which pictures then begin with."""
        self._is_flow = prediction_type == "flow"
        if self._is_flow and name not in ("euler", "k_euler"):
            _warn_of_flow(name)
        kind, settings = _FLOW if self._is_flow else SAMPLERS[name]
        if not self._is_flow:
            settings = settings | {"prediction_type": _PREDICTION_NAMES[prediction_type]}
            if steps == TRAIN_STEPS:
                # Every time once: by their own spacing ddim would leave the table, dpmsolver++ divide by 0.
                settings["timestep_spacing"] = "trailing"
            if zero_terminal_snr:
                settings |= _terminal_settings(kind, name, prediction_type)
        self._scheduler = getattr(diffusers, kind)(**settings)
        self._scheduler.set_timesteps(steps)

    @property
    def timesteps(self) -> Tensor:
        """(steps,) from noisy to clean, in 0..1000. On the CPU: reading one from a GPU would wait for it."""
        return self._scheduler.timesteps

    def start(self, noise: Tensor) -> Tensor:
        """The first x: standard normal noise, scaled as the sampler counts."""
        return noise if self._is_flow else noise * self._scheduler.init_noise_sigma

    def model_input(self, x: Tensor, t: Tensor) -> Tensor:
        """x as the model knows it."""
        return x if self._is_flow else self._scheduler.scale_model_input(x, t)

    def step(self, prediction: Tensor, t: Tensor, x: Tensor, generators: list[torch.Generator]) -> Tensor:
        """The next x, in its shape. generators: one per picture, for samplers that add noise."""
        return self._scheduler.step(prediction, t, x, generator=generators, return_dict=False)[0]


def _terminal_settings(kind: str, name: str, prediction_type: PredictionType) -> dict[str, Any]:
    """What begins pictures with pure noise; nothing, said once, where diffusers cannot."""
    settings = terminal_settings(prediction_type)
    if settings.keys() <= inspect.signature(getattr(diffusers, kind)).parameters.keys():
        return settings
    _warn_of_terminal(name)
    return {}


@cache
def _warn_of_terminal(name: str) -> None:
    warn(f"{name} cannot begin with pure noise, as the model was trained; ddim, euler and dpmsolver++ can")


@cache
def _warn_of_flow(name: str) -> None:
    warn(f"the model predicts flow, so its pictures are drawn with euler steps, not {name}")
