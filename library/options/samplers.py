"""Samplers and their schedules by the names that people write: sd-scripts', AUTOMATIC1111's, ComfyUI's and
diffusers'.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

SamplerName = Literal[
    "ddim",
    "pndm",
    "lms",
    "euler",
    "euler_a",
    "heun",
    "dpm_2",
    "dpm_2_a",
    "dpmsolver",
    "dpmsolver++",
    "dpmsingle",
    "dpm++_2m",
    "dpm++_2m_sde",
    "unipc",
    "deis",
    "lcm",
    "k_lms",
    "k_euler",
    "k_euler_a",
    "k_dpm_2",
    "k_dpm_2_a",
]
Schedule = Literal["karras", "exponential", "beta", "sgm_uniform", "trailing"]

SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

# Which schedules a sampler can follow beside its own. The first two space sigmas, the others timesteps.
_SIGMAS: tuple[Schedule, ...] = ("karras", "exponential")
_TIMES: tuple[Schedule, ...] = ("beta", "sgm_uniform", "trailing")
SCHEDULES_OF: dict[SamplerName, tuple[Schedule, ...]] = {
    "ddim": ("trailing",),
    "pndm": (),
    "lms": (*_SIGMAS, *_TIMES),
    "euler": (*_SIGMAS, *_TIMES),
    "euler_a": (*_SIGMAS, *_TIMES),
    "heun": (*_SIGMAS, *_TIMES),
    "dpm_2": (*_SIGMAS, "trailing"),
    "dpm_2_a": (*_SIGMAS, "trailing"),
    "dpmsolver": (*_SIGMAS, *_TIMES),
    "dpmsolver++": (*_SIGMAS, *_TIMES),
    "dpmsingle": (*_SIGMAS, "beta", "sgm_uniform"),
    "dpm++_2m": (*_SIGMAS, *_TIMES),
    "dpm++_2m_sde": (*_SIGMAS, *_TIMES),
    "unipc": (*_SIGMAS, "trailing"),
    "deis": (*_SIGMAS, "trailing"),
    "lcm": (),
}

# What else people write -> a sampler. Case, blanks, dashes and underscores make no difference.
ALIASES: dict[str, str] = {
    "dpm2": "dpm_2",
    "dpm2_a": "dpm_2_a",
    "dpm_2_ancestral": "dpm_2_a",
    "euler_ancestral": "euler_a",
    "dpmpp_2m": "dpm++_2m",
    "k_dpm++_2m": "dpm++_2m",
    "dpmpp_2m_sde": "dpm++_2m_sde",
    "dpmpp_2m_sde_gpu": "dpm++_2m_sde",
    "k_dpm++_2m_sde": "dpm++_2m_sde",
    # The grid of dpmsolver++ is SGM Uniform's.
    "dpm++_2m_sgm_uniform": "dpmsolver++",
    "dpmpp_2m_sgm_uniform": "dpmsolver++",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc",
    "plms": "pndm",
    "k_heun": "heun",
    "ddimscheduler": "ddim",
    "pndmscheduler": "pndm",
    "lmsdiscretescheduler": "lms",
    "eulerdiscretescheduler": "euler",
    "eulerancestraldiscretescheduler": "euler_a",
    "heundiscretescheduler": "heun",
    "kdpm2discretescheduler": "dpm_2",
    "kdpm2ancestraldiscretescheduler": "dpm_2_a",
    "dpmsolvermultistepscheduler": "dpmsolver++",
    "dpmsolversinglestepscheduler": "dpmsingle",
    "unipcmultistepscheduler": "unipc",
    "deismultistepscheduler": "deis",
    "lcmscheduler": "lcm",
}
# Samplers of other programs that nothing here is equal to -> what comes nearest.
WITHOUT_TWIN: dict[str, str] = {
    "dpm++_2s_a": "dpmsingle",
    "dpmpp_2s_ancestral": "dpmsingle",
    "dpm++_sde": "dpm++_2m_sde",
    "dpmpp_sde": "dpm++_2m_sde",
    "dpm++_3m_sde": "dpm++_2m_sde",
    "dpmpp_3m_sde": "dpm++_2m_sde",
    "dpm++_2m_sde_heun": "dpm++_2m_sde",
    "dpm_fast": "dpmsingle",
    "dpm_adaptive": "dpmsingle",
    "restart": "heun",
    "ddpm": "euler_a",
    "ipndm": "pndm",
}
_OWN_SCHEDULE = ("", "automatic", "normal", "uniform")  # of other programs, for what a sampler does anyway


def read_sampler(value: object) -> str:
    """The name of a sampler, with its schedule behind it if that is another than its own: "euler_a",
    "dpm++_2m_karras". Raises ValueError that says what is expected.
    """
    name = _spelled(str(value))
    sampler, schedule = _sampler_in(name), ""
    for end in (*SCHEDULES, *_OWN_SCHEDULE[1:]):
        if sampler is None and name.endswith(f"_{end}"):
            sampler, schedule = _sampler_in(name.removesuffix(f"_{end}")), end
    if sampler is None:
        raise ValueError(f"expects one of {', '.join(SAMPLER_NAMES)}, got {str(value)[:40]!r}")
    return with_schedule(sampler, None if schedule in _OWN_SCHEDULE else schedule)


def with_schedule(name: str, schedule: str | None) -> str:
    """A sampler's name with another schedule in place of its own; None keeps what it has.

    Raises ValueError for a schedule that the sampler cannot follow.
    """
    sampler, given = parts_of(name)
    schedule = schedule or given
    if schedule is None:
        return sampler
    possible = SCHEDULES_OF[sampler.removeprefix("k_")]  # type: ignore[index]
    if schedule not in possible:
        others = f"it can follow {', '.join(possible)}" if possible else "it has only its own"
        raise ValueError(f"{sampler} does not follow the schedule {schedule}: {others}")
    return f"{sampler}_{schedule}"


def parts_of(name: str) -> tuple[str, Schedule | None]:
    """A name that `read_sampler` gave as sampler and schedule; None is the sampler's own."""
    for schedule in SCHEDULES:
        if name not in SAMPLER_NAMES and name.endswith(f"_{schedule}"):
            return name.removesuffix(f"_{schedule}"), schedule
    return name, None


def _spelled(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip().lower())


def _sampler_in(name: str) -> str | None:
    """The sampler that a spelled name means; None if there is none. Raises ValueError for one of other
    programs that nothing here is equal to.
    """
    if name in WITHOUT_TWIN:
        raise ValueError(f"nothing here draws like {name}; the nearest is {WITHOUT_TWIN[name]}")
    return name if name in SAMPLER_NAMES else ALIASES.get(name)
