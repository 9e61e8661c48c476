"""Samplers: names users know and diffusers' schedulers that do the work."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from functools import cache
from typing import Any

import diffusers
import torch
from torch import Tensor

from library.models.base import PredictionType
from library.models.noise_schedule import DDIM_CONFIG, SCHEDULER_CONFIG, TRAIN_STEPS, terminal_settings
from library.problems import warn

# dpmsolver's last step would divide by a noise of 0, so it ends at the least noise that models know.
_DPM_SOLVER = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
# The one whose times have no offset; only so does it take any number of steps.
_SINGLE_STEP = {key: value for key, value in SCHEDULER_CONFIG.items() if key != "steps_offset"}
_SINGLE_STEP |= {"lower_order_final": True}
_NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", DDIM_CONFIG),
    "pndm": ("PNDMScheduler", SCHEDULER_CONFIG | {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", SCHEDULER_CONFIG),
    "euler": ("EulerDiscreteScheduler", SCHEDULER_CONFIG),
    "euler_a": ("EulerAncestralDiscreteScheduler", SCHEDULER_CONFIG),
    "heun": ("HeunDiscreteScheduler", SCHEDULER_CONFIG),
    "dpm_2": ("KDPM2DiscreteScheduler", SCHEDULER_CONFIG),
    "dpm_2_a": ("KDPM2AncestralDiscreteScheduler", SCHEDULER_CONFIG),
    "dpmsolver": ("DPMSolverMultistepScheduler", SCHEDULER_CONFIG | _DPM_SOLVER),
    "dpmsolver++": ("DPMSolverMultistepScheduler", SCHEDULER_CONFIG | {"algorithm_type": "dpmsolver++"}),
    "dpmsingle": ("DPMSolverSinglestepScheduler", _SINGLE_STEP),
}
SAMPLERS = _NAMED | {f"k_{name}": _NAMED[name] for name in ("lms", "euler", "euler_a", "dpm_2", "dpm_2_a")}
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
            if steps == TRAIN_STEPS and "timestep_spacing" in _parameters(kind):
                # Every time once: by their own spacing ddim would leave the table, dpmsolver++ divide by 0.
                settings["timestep_spacing"] = "trailing"
            # A model that predicts the noise has nothing to say at pure noise, where 1,000 steps begin.
            if zero_terminal_snr and (prediction_type == "v" or steps < TRAIN_STEPS):
                settings |= _terminal_settings(kind, name, prediction_type)
        self._scheduler = getattr(diffusers, kind)(**settings)
        self._scheduler.set_timesteps(steps)
        self._adds_noise = "generator" in inspect.signature(self._scheduler.step).parameters

    @property
    def timesteps(self) -> Tensor:
        """From noisy to clean, in 0..1000; more than `steps` where a step asks the model twice.

        On the CPU: reading one from a GPU would wait for it.
        """
        return self._scheduler.timesteps

    def start(self, noise: Tensor) -> Tensor:
        """The first x: standard normal noise, scaled as the sampler counts."""
        return noise if self._is_flow else noise * self._scheduler.init_noise_sigma

    def model_input(self, x: Tensor, t: Tensor) -> Tensor:
        """x as the model knows it."""
        return x if self._is_flow else self._scheduler.scale_model_input(x, t)

    def step(self, prediction: Tensor, t: Tensor, x: Tensor, generators: list[torch.Generator]) -> Tensor:
        """The next x, in its shape. generators: one per picture, for samplers that add noise."""
        drawn = {"generator": generators} if self._adds_noise else {}
        return self._scheduler.step(prediction, t, x, **drawn, return_dict=False)[0]


def _terminal_settings(kind: str, name: str, prediction_type: PredictionType) -> dict[str, Any]:
    """What begins pictures with pure noise; nothing, said once, where diffusers cannot."""
    settings = terminal_settings(prediction_type)
    if settings.keys() <= _parameters(kind):
        return settings
    _warn_of_terminal(name)
    return {}


def _parameters(kind: str) -> Collection[str]:
    return inspect.signature(getattr(diffusers, kind)).parameters.keys()


@cache
def count_calls(name: str, prediction_type: PredictionType, steps: int) -> int:
    """How often a model is asked for one batch: once a step with most samplers."""
    return len(Sampler(name, prediction_type, steps).timesteps)


@cache
def _warn_of_terminal(name: str) -> None:
    warn(f"{name} cannot begin with pure noise, as the model was trained; ddim, euler and dpmsolver++ can")


@cache
def _warn_of_flow(name: str) -> None:
    warn(f"the model predicts flow, so its pictures are drawn with euler steps, not {name}")
