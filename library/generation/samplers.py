"""Samplers: the names that users know, over diffusers' schedulers, which do the work."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from library.generation.time_grids import times_of
from library.models.base import PredictionType
from library.models.noise_schedule import DDIM_CONFIG, SCHEDULER_CONFIG, TRAIN_STEPS, terminal_settings
from library.options.samplers import parts_of
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
_DPM_SOLVER_SDE = {"algorithm_type": "sde-dpmsolver++"}
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
    # k-diffusion's DPM++ 2M, for which the times are given: diffusers' own ones are SGM Uniform's.
    "dpm++_2m": SamplerKind(
        f"{_IN}dpmsolver_multistep.DPMSolverMultistepScheduler", SCHEDULER_CONFIG | _DPM_SOLVER_PLUS
    ),
    "dpm++_2m_sde": SamplerKind(
        f"{_IN}dpmsolver_multistep.DPMSolverMultistepScheduler", SCHEDULER_CONFIG | _DPM_SOLVER_SDE
    ),
    "unipc": SamplerKind(f"{_IN}unipc_multistep.UniPCMultistepScheduler", SCHEDULER_CONFIG),
    "deis": SamplerKind(f"{_IN}deis_multistep.DEISMultistepScheduler", SCHEDULER_CONFIG),
    "lcm": SamplerKind(f"{_IN}lcm.LCMScheduler", SCHEDULER_CONFIG),
}
_GIVEN_SIGMAS = ("euler_a", "lms")  # diffusers' classes do not take schedules: they get those of euler
SAMPLERS = _NAMED | {f"k_{name}": _NAMED[name] for name in ("lms", "euler", "euler_a", "dpm_2", "dpm_2_a")}
_FLOW = SamplerKind(
    f"{_IN}flow_match_euler_discrete.FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": TRAIN_STEPS}
)

_PREDICTION_NAMES: dict[PredictionType, str] = {"epsilon": "epsilon", "v": "v_prediction"}


class Growth(NamedTuple):
    """How latents become larger at a step.

    resize, sharpen: what is done with them, and with what was computed from them.
    s_noise: the strength of the noise that is added, in the new size.
    of_result: whether this is done with the result of the step, or with what it begins with.
    """

    resize: Callable[[Tensor], Tensor]
    sharpen: Callable[[Tensor], Tensor]
    s_noise: float = 1.0
    of_result: bool = True


class Sampler:
    """The way from noise to a picture in `steps` steps. One object draws one batch: schedulers keep earlier
    predictions.

    Flow models are drawn with Euler steps whatever the name; a warning says so once.
    """

    def __init__(
        self,
        name: str,
        prediction_type: PredictionType,
        steps: int,
        *,
        strength: float = 1.0,
        zero_terminal_snr: bool = False,
    ) -> None:
        """name: as `read_sampler` gives it.
        strength: the share of the steps that is gone, the last ones.
        zero_terminal_snr: whether the model knows pure noise, which its pictures then begin with.
        """
        self._is_flow = prediction_type == "flow"
        if self._is_flow:
            if name not in ("euler", "k_euler"):
                _warn_of_flow(name)
            self._scheduler = _FLOW.find_class()(**_FLOW.settings)
            self._scheduler.set_timesteps(steps)
        else:
            made = _scheduler(name, prediction_type, steps, zero_terminal_snr)
            self._scheduler = copy.deepcopy(made)
        self._adds_noise = "generator" in inspect.signature(self._scheduler.step).parameters
        # diffusers' rule of img2img, for all: the noise is that of the first step that is gone.
        skipped = self._steps(steps) - min(int(steps * strength), steps)
        self.timesteps = self._from(max(0, skipped))

    def _steps(self, asked: int) -> int:
        """How many there are: some schedules have fewer than was asked for."""
        return min(asked, (len(self._scheduler.timesteps) + self.order - 1) // self.order)

    @property
    def order(self) -> int:
        """How often the model is asked at a step."""
        return int(self._scheduler.order)

    def _from(self, skipped: int) -> Tensor:
        """The times at which the model is asked, from noisy to clean, in 0..1000, without the first steps.

        On the CPU: reading one from a GPU would wait for it.
        """
        times: Tensor = self._scheduler.timesteps
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(skipped * self.order)
        elif skipped and len(times) > 2 and times[1] == times[2]:
            # pndm goes its first step twice, wherever it begins; diffusers' own img2img leaves that out.
            times = torch.cat([times[:1], times[2:]])[skipped:]
            return torch.cat([times[:1], times[1:2], times[1:]])
        return times[skipped * self.order :]

    def start(self, noise: Tensor) -> Tensor:
        """The first x: standard normal noise, scaled to the sampler's first sigma."""
        return noise if self._is_flow else noise * self._scheduler.init_noise_sigma

    def noised(self, latents: Tensor, noise: Tensor, call: int = 0) -> Tensor:
        """Clean latents with as much noise as x has before a call, the next one that is made; after the last
        one none.
        """
        if call == len(self.timesteps):
            return latents
        t = self.timesteps[call : call + 1]
        if self._is_flow:
            return self._scheduler.scale_noise(latents, t, noise)
        return self._scheduler.add_noise(latents, noise, t)

    def is_between(self, call: int) -> bool:
        """Whether x, before a call, is in the middle of a step."""
        return call % self.order != 0 and call != len(self.timesteps)

    def model_input(self, x: Tensor, t: Tensor) -> Tensor:
        """x, scaled as the model was trained to see it at time t."""
        return x if self._is_flow else self._scheduler.scale_model_input(x, t)

    def step(self, prediction: Tensor, t: Tensor, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The next x, in its shape. generators: one for each picture, for samplers that add noise."""
        drawn = {"generator": list(generators)} if self._adds_noise else {}
        return self._scheduler.step(prediction, t, x, **drawn, return_dict=False)[0]

    def grow(
        self,
        prediction: Tensor,
        t: Tensor,
        x: Tensor,
        generators: Sequence[torch.Generator],
        growth: Growth,
    ) -> Tensor:
        """A step whose result is larger. Only with samplers that keep no earlier predictions.

        euler_a, as kohya-ss draws: the step towards less noise, then new noise in the new size. Others add no
        noise, and what is made larger would have none of the finest: the clean picture that is predicted is
        made larger, and gets new noise, as much as the next step begins with.
        """
        if "EulerAncestral" in type(self._scheduler).__name__:
            return self._grow_ancestral(prediction, x, generators, growth)
        drawn = {"generator": list(generators)} if self._adds_noise else {}
        clean = self._scheduler.step(prediction, t, x, **drawn, return_dict=False)[1]
        clean = growth.sharpen(growth.resize(clean))
        call = int((self.timesteps == t).nonzero()[-1 if self.order > 1 else 0]) + 1
        return self.noised(clean, _noise_like(clean, generators) * growth.s_noise, call)

    def _grow_ancestral(
        self, prediction: Tensor, x: Tensor, generators: Sequence[torch.Generator], growth: Growth
    ) -> Tensor:
        scheduler = self._scheduler
        if scheduler.step_index is None:
            scheduler._init_step_index(self.timesteps[0])
        sigma, after = scheduler.sigmas[scheduler.step_index : scheduler.step_index + 2]
        up = (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5
        down = (after**2 - up**2) ** 0.5
        derivative = prediction  # the noise that is predicted is dx / dsigma
        if scheduler.config.prediction_type == "v_prediction":
            clean = prediction * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)
            derivative = (x - clean) / sigma
        if growth.of_result:
            x = growth.sharpen(growth.resize(x + derivative * (down - sigma)))
        else:
            x = growth.sharpen(growth.resize(x)) + growth.resize(derivative) * (down - sigma)
        scheduler._step_index += 1
        return x + _noise_like(x, generators) * (up * growth.s_noise)


def _noise_like(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    drawn = [torch.randn((1, *x.shape[1:]), generator=generator) for generator in generators]
    return torch.cat(drawn).to(x)


@cache  # diffusers' classes take up to a second to make one
def _scheduler(name: str, prediction_type: PredictionType, steps: int, zero_terminal_snr: bool) -> Any:
    """diffusers' scheduler with its times set, from which those of batches are copied."""
    sampler, schedule = parts_of(name)
    kind = _with_prediction(sampler, prediction_type, steps, zero_terminal_snr)
    settings, times = dict(kind.settings), None
    if schedule is None and sampler == "dpm++_2m":
        times = times_of("linspace", steps)
    elif schedule in ("beta", "sgm_uniform"):
        times = times_of(schedule, steps)
    elif schedule == "trailing":
        settings["timestep_spacing"] = "trailing"
    elif schedule is not None:
        settings |= {f"use_{schedule}_sigmas": True}
    if schedule is not None and sampler.removeprefix("k_") in _GIVEN_SIGMAS:
        settings = {key: value for key, value in settings.items() if not key.startswith("use_")}
        scheduler = kind.find_class()(**settings)
        scheduler.set_timesteps(steps)
        euler = _scheduler(f"euler_{schedule}", prediction_type, steps, zero_terminal_snr)
        scheduler.timesteps, scheduler.sigmas = euler.timesteps, euler.sigmas
        scheduler.num_inference_steps = len(euler.timesteps)
        return scheduler
    scheduler = kind.find_class()(**settings)
    if times is not None:
        whole = "DPMSolver" in kind.scheduler
        scheduler.set_timesteps(timesteps=[round(t) if whole else t for t in times])
    elif sampler == "lcm":  # it skips steps of a schedule of 50
        scheduler.set_timesteps(steps, original_inference_steps=max(steps, 50))
    else:
        scheduler.set_timesteps(steps)
    return scheduler


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
    # A model of the noise has nothing to say at pure noise, where 1,000 steps begin, and all of lcm's.
    begins_there = steps == TRAIN_STEPS or name == "lcm"
    if zero_terminal_snr and (prediction_type == "v" or not begins_there):
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
def count_calls(name: str, prediction_type: PredictionType, steps: int, strength: float = 1.0) -> int:
    """How often the model is asked for one batch: once a step with most samplers."""
    return len(Sampler(name, prediction_type, steps, strength=strength).timesteps)


@cache  # once for each name
def _warn_of_terminal(name: str) -> None:
    warn(f"{name} cannot begin with pure noise, as the model was trained; ddim, euler and dpmsolver++ can")


@cache  # once for each name
def _warn_of_flow(name: str) -> None:
    warn(f"the model predicts flow, so its pictures are drawn with euler steps, not {name}")
