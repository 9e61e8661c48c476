"""Samplers: the names that users know, over diffusers' schedulers, which do the work."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from library.models.base import PredictionType
from library.models.noise_schedule import DDIM_CONFIG, SCHEDULER_CONFIG, TRAIN_STEPS, terminal_settings
from library.problems import warn
from library.unused_packages import hidden_from


class SamplerKind(NamedTuple):
    """A sampler's scheduler: the dotted path of its class, and what it is made with."""

    scheduler: str
    settings: Mapping[str, Any]

    def find_class(self) -> Any:
        """The scheduler's class, from the one module that has it."""
        module, _, name = self.scheduler.rpartition(".")
        with hidden_from("diffusers"):
            return getattr(import_module(module), name)


_IN = "diffusers.schedulers.scheduling_"
# dpmsolver's last step would divide by a noise of 0, so it ends at the least noise that models know.
_DPM_SOLVER = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
_DPM_SOLVER_PLUS = {"algorithm_type": "dpmsolver++"}
# The only one whose timesteps have no offset; with one, it fails for some numbers of steps.
_SINGLE_STEP = {key: value for key, value in SCHEDULER_CONFIG.items() if key != "steps_offset"}
_SINGLE_STEP |= {"lower_order_final": True}
_NAMED: dict[str, SamplerKind] = {
    "ddim": SamplerKind(f"{_IN}ddim.DDIMScheduler", DDIM_CONFIG),
    "pndm": SamplerKind(f"{_IN}pndm.PNDMScheduler", SCHEDULER_CONFIG | {"skip_prk_steps": True}),
    "lms": SamplerKind("library.generation.lms.LMS", SCHEDULER_CONFIG),
    "euler": SamplerKind(f"{_IN}euler_discrete.EulerDiscreteScheduler", SCHEDULER_CONFIG),
    "euler_a": SamplerKind(
        f"{_IN}euler_ancestral_discrete.EulerAncestralDiscreteScheduler", SCHEDULER_CONFIG
    ),
    "heun": SamplerKind(f"{_IN}heun_discrete.HeunDiscreteScheduler", SCHEDULER_CONFIG),
    "dpm_2": SamplerKind(f"{_IN}k_dpm_2_discrete.KDPM2DiscreteScheduler", SCHEDULER_CONFIG),
    "dpm_2_a": SamplerKind(
        f"{_IN}k_dpm_2_ancestral_discrete.KDPM2AncestralDiscreteScheduler", SCHEDULER_CONFIG
    ),
    "dpmsolver": SamplerKind(
        f"{_IN}dpmsolver_multistep.DPMSolverMultistepScheduler", SCHEDULER_CONFIG | _DPM_SOLVER
    ),
    "dpmsolver++": SamplerKind(
        f"{_IN}dpmsolver_multistep.DPMSolverMultistepScheduler", SCHEDULER_CONFIG | _DPM_SOLVER_PLUS
    ),
    "dpmsingle": SamplerKind(f"{_IN}dpmsolver_singlestep.DPMSolverSinglestepScheduler", _SINGLE_STEP),
}
SAMPLERS = _NAMED | {f"k_{name}": _NAMED[name] for name in ("lms", "euler", "euler_a", "dpm_2", "dpm_2_a")}
_FLOW = SamplerKind(
    f"{_IN}flow_match_euler_discrete.FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": TRAIN_STEPS}
)

_PREDICTION_NAMES: dict[PredictionType, str] = {"epsilon": "epsilon", "v": "v_prediction"}


class Sampler:
    """The way from noise to a picture in `steps` steps. One object draws one batch: schedulers keep earlier
    predictions.

    Flow models are drawn with Euler steps whatever the name; a warning says so once.
    """

    def __init__(
        self, name: str, prediction_type: PredictionType, steps: int, *, zero_terminal_snr: bool = False
    ) -> None:
        """zero_terminal_snr: whether the model knows pure noise, which its pictures then begin with."""
        self._is_flow = prediction_type == "flow"
        if self._is_flow:
            if name not in ("euler", "k_euler"):
                _warn_of_flow(name)
            kind = _FLOW
        else:
            kind = _with_prediction(name, prediction_type, steps, zero_terminal_snr)
        self._scheduler = kind.find_class()(**kind.settings)
        self._scheduler.set_timesteps(steps)
        self._adds_noise = "generator" in inspect.signature(self._scheduler.step).parameters

    @property
    def timesteps(self) -> Tensor:
        """From noisy to clean, in 0..1000; more than `steps` where a step asks the model twice.

        On the CPU: reading one from a GPU would wait for it.
        """
        return self._scheduler.timesteps

    def start(self, noise: Tensor) -> Tensor:
        """The first x: standard normal noise, scaled to the sampler's first sigma."""
        return noise if self._is_flow else noise * self._scheduler.init_noise_sigma

    def model_input(self, x: Tensor, t: Tensor) -> Tensor:
        """x, scaled as the model was trained to see it at time t."""
        return x if self._is_flow else self._scheduler.scale_model_input(x, t)

    def step(self, prediction: Tensor, t: Tensor, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The next x, in its shape. generators: one for each picture, for samplers that add noise."""
        drawn = {"generator": list(generators)} if self._adds_noise else {}
        return self._scheduler.step(prediction, t, x, **drawn, return_dict=False)[0]


def _with_prediction(
    name: str, prediction_type: PredictionType, steps: int, zero_terminal_snr: bool
) -> SamplerKind:
    """A row of SAMPLERS with what a model and a number of steps add to its settings."""
    kind = SAMPLERS[name]
    known = set(inspect.signature(kind.find_class()).parameters)
    more: dict[str, Any] = {"prediction_type": _PREDICTION_NAMES[prediction_type]}
    if steps == TRAIN_STEPS and "timestep_spacing" in known:
        # Every timestep once: with their own spacing ddim would leave the table, dpmsolver++ divide by 0.
        more["timestep_spacing"] = "trailing"
    # A model that predicts the noise has nothing to say at pure noise, where 1,000 steps begin.
    if zero_terminal_snr and (prediction_type == "v" or steps < TRAIN_STEPS):
        more |= _terminal_settings(known, name, prediction_type)
    return SamplerKind(kind.scheduler, {**kind.settings, **more})


def _terminal_settings(known: set[str], name: str, prediction_type: PredictionType) -> dict[str, Any]:
    """The settings that let pictures begin with pure noise; none, with a warning, where a scheduler that has
    the `known` ones does not take them.
    """
    settings = terminal_settings(prediction_type)
    if settings.keys() <= known:
        return settings
    _warn_of_terminal(name)
    return {}


@cache
def count_calls(name: str, prediction_type: PredictionType, steps: int) -> int:
    """How often the model is asked for one batch: once a step with most samplers."""
    return len(Sampler(name, prediction_type, steps).timesteps)


@cache  # once for each name
def _warn_of_terminal(name: str) -> None:
    warn(f"{name} cannot begin with pure noise, as the model was trained; ddim, euler and dpmsolver++ can")


@cache  # once for each name
def _warn_of_flow(name: str) -> None:
    warn(f"the model predicts flow, so its pictures are drawn with euler steps, not {name}")
