"""Samplers by the names that people write, their schedules, and where pictures from pictures begin."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from library.generation.lms import _weights
from library.generation.samplers import Sampler
from library.generation.time_grids import times_of
from library.options.samplers import SAMPLER_NAMES, SCHEDULES, SCHEDULES_OF, read_sampler, with_schedule

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "drawing.json").read_text())
TEN = {name: row for name, row in GOLDEN["samplers_10_steps"].items() if isinstance(row, dict)}
# Rows of the original that are wrong, with the reason.
WRONG_STARTS = {
    "pndm": "its list has a time twice, so an index means another step",
    "heun": "its list has each time twice, so an index means another step",
    "dpm_2": "the same",
    "dpm_2_a": "the same",
}
OTHER_TIMES = {  # ours differ on purpose (docs/differences.md)
    "pndm": "begins with Runge-Kutta steps; here they are skipped",
    "dpmsolver": "cannot be used; here it ends at the least noise",
}


def exact(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The noise that an exact denoiser predicts where pictures are normal with deviation 0.5."""
    return x * sigma / (0.25 + sigma**2)


def k_diffusion(sigmas: list[float], x: torch.Tensor) -> torch.Tensor:
    """DPM-Solver++(2M) over sigmas (Lu et al. 2022, arXiv:2211.01095, algorithm 2), as k-diffusion has it."""
    old = None
    for place, (sigma, after) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        denoised = x - sigma * exact(x, sigma)
        if after == 0:
            return denoised
        h = math.log(sigma) - math.log(after)
        if old is None:
            direction = denoised
        else:
            r = (math.log(sigmas[place - 1]) - math.log(sigma)) / h
            direction = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * old
        x = (after / sigma) * x - math.expm1(-h) * direction
        old = denoised
    return x


def drawn(name: str, steps: int, start: float) -> torch.Tensor:
    """Ours with the same denoiser; x in k-diffusion's scale."""
    sampler = Sampler(name, "epsilon", steps)
    sigmas = sampler._scheduler.sigmas
    scale = 1 if hasattr(sampler._scheduler, "is_scale_input_called") else (1 + sigmas[0] ** 2) ** -0.5
    x = torch.full((1, 1, 1, 1), start) * scale
    for call, t in enumerate(sampler.timesteps):
        sigma = float(sigmas[call])
        own = x if scale == 1 else x * (1 + sigma**2) ** 0.5
        x = sampler.step(exact(own, sigma), t, x, [torch.Generator()])
    return x


@pytest.mark.parametrize("name", [name for name in TEN if name not in OTHER_TIMES])
def test_times_sigmas_and_calls_of_ten_steps_are_the_golden_ones(name: str) -> None:
    sampler, row = Sampler(name, "epsilon", 10), TEN[name]
    assert sampler.timesteps.tolist() == pytest.approx(row["timesteps"], abs=1e-3)
    assert len(sampler.timesteps) == row["model_calls"]
    assert float(sampler.start(torch.ones(1))) == pytest.approx(row["init_noise_sigma"], rel=1e-6)
    if "sigmas" in row:
        assert sampler._scheduler.sigmas.tolist() == pytest.approx(row["sigmas"], abs=2e-6)


@pytest.mark.parametrize("steps", [10, 20, 30])
def test_dpm_2m_is_k_diffusions(steps: int) -> None:
    table = Sampler("ddim", "epsilon", 2)._scheduler.alphas_cumprod
    logs = ((1 - table) / table).sqrt().log()
    for times, tolerance in (
        (times_of("linspace", steps), 2e-4),
        (map(round, times_of("linspace", steps)), 1e-5),
    ):
        places = torch.tensor(list(times), dtype=torch.float64)
        low = places.floor().long().clamp(max=998)
        sigmas = torch.lerp(logs[low].double(), logs[low + 1].double(), places - low).exp().tolist()
        theirs = k_diffusion([*sigmas, 0.0], torch.full((1, 1, 1, 1), 14.6))
        assert abs(float(drawn("dpm++_2m", steps, 14.6) - theirs)) <= tolerance
    least, most = float(logs[0].exp()), float(logs[-1].exp())
    ramp = [place / (steps - 1) for place in range(steps)]
    karras = [(most ** (1 / 7) + at * (least ** (1 / 7) - most ** (1 / 7))) ** 7 for at in ramp]
    theirs = k_diffusion([*karras, 0.0], torch.full((1, 1, 1, 1), 14.6))
    assert abs(float(drawn("dpm++_2m_karras", steps, 14.6) - theirs)) <= 1e-5


SIGMAS = {
    "euler_karras": [14.6146, 9.1029, 5.4784, 3.1686, 1.7494, 0.9141, 0.4469, 0.2014, 0.0819, 0.0292, 0],
    "euler_exponential": [14.6146, 7.3249, 3.6712, 1.84, 0.9222, 0.4622, 0.2317, 0.1161, 0.0582, 0.0292, 0],
    "euler_sgm_uniform": [14.6146, 8.3072, 5.0924, 3.3251, 2.2797, 1.6156, 1.1629, 0.8319, 0.5712, 0.3437, 0],
    "euler_beta": [14.6146, 11.5428, 7.3718, 4.3728, 2.6152, 1.6183, 1.0273, 0.6549, 0.3955, 0.1991, 0],
}


@pytest.mark.parametrize("name", SIGMAS)
@pytest.mark.parametrize("sampler", ["euler", "euler_a", "lms"])
def test_schedules_are_those_of_other_programs(name: str, sampler: str) -> None:
    found = Sampler(name.replace("euler", sampler), "epsilon", 10)
    assert found._scheduler.sigmas.tolist() == pytest.approx(SIGMAS[name], abs=6e-5)


def test_the_beta_schedule_is_over_times() -> None:
    assert times_of("beta", 10) == [999, 959, 876, 765, 637, 500, 362, 234, 123, 40]
    many = times_of("beta", 1000)
    assert len(many) < 1000 and many == sorted(set(many), reverse=True)


FOLLOWED = [f"{name}_{schedule}" for name, those in SCHEDULES_OF.items() for schedule in those]


@pytest.mark.parametrize("name", FOLLOWED)
def test_every_schedule_that_a_sampler_follows_can_be_gone(name: str) -> None:
    plain = Sampler(name.rpartition("_")[0].removesuffix("_sgm"), "v", 8).timesteps.tolist()
    for steps, strength in ((1, 1.0), (8, 1.0), (8, 0.5)):
        sampler = Sampler(name, "v", steps, strength=strength)
        x, generators = torch.ones(1, 4, 1, 1), [torch.Generator().manual_seed(0)]
        x = sampler.start(x) if strength == 1 else sampler.noised(x, x)
        for t in sampler.timesteps:
            x = sampler.step(0.1 * sampler.model_input(x, t), t, x, generators)
        assert torch.isfinite(x).all()
        if steps == 8 and strength == 1 and name not in ("dpmsolver++_sgm_uniform", "dpmsolver_sgm_uniform"):
            has_own = name.endswith("sgm_uniform") and name.startswith(("dpmsingle", "dpm++_2m_sde"))
            assert has_own or sampler.timesteps.tolist() != plain


NAMES = {
    "Euler a": "euler_a",
    "EULER": "euler",
    "DPM++ 2M": "dpm++_2m",
    "DPM++ 2M Karras": "dpm++_2m_karras",
    "dpm++_2m karras": "dpm++_2m_karras",
    "dpmpp_2m": "dpm++_2m",
    "DPM++ 2M SDE Exponential": "dpm++_2m_sde_exponential",
    "DPM++ 2M SGM Uniform": "dpmsolver++",
    "LMS Karras": "lms_karras",
    "DPM2 a Karras": "dpm_2_a_karras",
    "UniPC": "unipc",
    "uni_pc": "unipc",
    "DDIM": "ddim",
    "PLMS": "pndm",
    "k_euler_a": "k_euler_a",
    "k_dpm_2_a": "k_dpm_2_a",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "euler normal": "euler",
}


@pytest.mark.parametrize("name", NAMES)
def test_samplers_are_known_by_the_names_that_people_write(name: str) -> None:
    assert read_sampler(name) == NAMES[name]
    Sampler(NAMES[name], "epsilon", 4)


def test_every_name_means_itself_and_no_alias_means_what_is_not_there() -> None:
    from library.options.samplers import ALIASES, WITHOUT_TWIN

    assert [read_sampler(name) for name in SAMPLER_NAMES] == list(SAMPLER_NAMES)
    assert {*ALIASES.values(), *WITHOUT_TWIN.values()} <= set(SAMPLER_NAMES)
    assert not set(SAMPLER_NAMES) & {*ALIASES, *WITHOUT_TWIN}
    assert [read_sampler(f"{name}_{end}") for name, those in SCHEDULES_OF.items() for end in those]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DPM++ 2S a Karras", "nothing here draws like dpm++_2s_a; the nearest is dpmsingle"),
        ("DPM++ 3M SDE", "nothing here draws like dpm"),
        ("eulr", "expects one of ddim, pndm"),
        ("", "expects one of"),
        ("DDIM Karras", "ddim does not follow the schedule karras: it can follow trailing"),
        ("PLMS Karras", "pndm does not follow the schedule karras: it has only its own"),
    ],
)
def test_what_nothing_here_draws_like_is_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_sampler(name)
    assert str(caught.value).startswith(said)


def test_a_schedule_of_its_own_takes_the_place_of_the_names() -> None:
    assert with_schedule("euler", "karras") == "euler_karras"
    assert with_schedule("euler_karras", "beta") == "euler_beta"
    assert with_schedule("euler_karras", None) == "euler_karras"
    with pytest.raises(ValueError, match="does not follow"):
        with_schedule("lcm", SCHEDULES[0])


@pytest.mark.parametrize("name", GOLDEN["img2img_start"])
@pytest.mark.parametrize("steps", ["10", "20"])
def test_pictures_begin_at_the_golden_steps_with_the_noise_of_these(name: str, steps: str) -> None:
    """Those of --force_scheduler_zero_steps_offset; otherwise the original's noise is one step higher."""
    times = Sampler(name, "epsilon", int(steps))
    for strength, (gone, _, first, left, at) in GOLDEN["img2img_start"][name][steps]["zero_offset"].items():
        sampler = Sampler(name, "epsilon", int(steps), strength=float(strength))
        calls = sampler.timesteps.tolist()
        assert min(int(int(steps) * float(strength)), int(steps)) == gone
        if gone == 0:  # the original draws from pure noise then
            assert calls == []
        elif name in WRONG_STARTS:
            whole = Sampler(name, "epsilon", int(steps)).timesteps.tolist()
            each = list(dict.fromkeys(whole)) if times.order == 1 else whole[:: times.order]
            assert calls[0] == each[-gone]
        else:
            assert len(calls) == left and calls[0] == pytest.approx(at, abs=1e-2)
            assert first == int(steps) - gone


@pytest.mark.parametrize("name", [name for name in SAMPLER_NAMES if not name.startswith("k_")])
def test_a_clean_picture_stays_what_it_is_under_an_exact_denoiser(name: str) -> None:
    """Of one picture alone the noise is known: the sampler begins with as much as it takes away."""
    clean, noise = torch.full((1, 4, 1, 1), 0.7), torch.ones(1, 4, 1, 1)
    sampler = Sampler(name, "epsilon", 10, strength=0.5)
    x = sampler.noised(clean, noise)
    table = Sampler("ddim", "epsilon", 2)._scheduler.alphas_cumprod
    for t in sampler.timesteps:
        low = int(t)
        alpha = torch.lerp(table[low], table[min(low + 1, 999)], float(t) - low)
        seen = sampler.model_input(x, t)
        x = sampler.step((seen - alpha.sqrt() * clean) / (1 - alpha).sqrt(), t, x, [torch.Generator()])
    assert float((x - clean).abs().max()) < 0.06


@pytest.mark.parametrize("name", ["ddim", "pndm"])
def test_few_steps_begin_with_pictures_too(name: str) -> None:
    counts = [len(Sampler(name, "epsilon", steps, strength=0.5).timesteps) for steps in (1, 2, 3, 4, 6)]
    assert counts == ([0, 1, 1, 2, 3] if name == "ddim" else [0, 1, 1, 3, 4])


def test_the_weights_of_lms_are_kept() -> None:
    _weights.cache_clear()
    for _ in range(2):
        sampler = Sampler("lms", "epsilon", 10)
        x = sampler.start(torch.ones(1, 4, 1, 1))
        for t in sampler.timesteps:
            x = sampler.step(0.1 * sampler.model_input(x, t), t, x, [])
    assert _weights.cache_info().misses == 10
