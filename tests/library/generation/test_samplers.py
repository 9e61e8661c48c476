"""The sampler table over diffusers' schedulers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import diffusers
import pytest
import torch
from long_cases import long

from library.generation import samplers
from library.generation.lms import LMS
from library.generation.samplers import SAMPLERS, Sampler, count_calls
from library.options.samplers import SAMPLER_NAMES, SCHEDULES_OF

# What the published scheduler_config.json of SD 1.5 says about noising.
SD1_CONFIG = json.loads((Path(__file__).parents[2] / "data" / "sd1_scheduler_config.json").read_text())

# What else makes diffusers' classes the samplers that these names stand for.
OWN = {
    "pndm": {"skip_prk_steps": True},
    "dpmsolver": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    "dpmsingle": {"lower_order_final": True},
    "dpm++_2m_sde": {"algorithm_type": "sde-dpmsolver++"},
}
TIMES = {"dpm++_2m": {"timesteps": [999, 832, 666, 500, 333, 166, 0]}}  # instead of a number of steps

# Ours -> diffusers' class.
OTHER_NAMES = {"lms": "LMSDiscreteScheduler", "k_lms": "LMSDiscreteScheduler"}

KNOW_PURE_NOISE = (
    *("ddim", "euler", "euler_a", "k_euler", "k_euler_a", "dpmsolver", "dpmsolver++"),
    *("dpm++_2m_sde", "unipc", "lcm"),
)


def test_the_options_offer_what_the_table_has() -> None:
    assert sorted(SAMPLER_NAMES) == sorted(SAMPLERS)
    assert {name.removeprefix("k_") for name in SAMPLERS} == SCHEDULES_OF.keys()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_sampler_is_diffusers_scheduler_made_from_stable_diffusions_configuration(
    name: str, prediction: str
) -> None:
    kind = getattr(diffusers, OTHER_NAMES.get(name) or SAMPLERS[name].scheduler.rpartition(".")[2])
    prediction_type = "v_prediction" if prediction == "v" else "epsilon"
    scheduler = kind.from_config(SD1_CONFIG | OWN.get(name, {}) | {"prediction_type": prediction_type})
    scheduler.set_timesteps(**TIMES.get(name, {"num_inference_steps": 7}))
    sampler = Sampler(name, prediction, 7)
    assert torch.equal(sampler.timesteps, scheduler.timesteps)
    tolerance = 1e-5 if name in OTHER_NAMES else 0  # our integrals are exact, diffusers' are in float32

    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, theirs = sampler.start(x), x * scheduler.init_noise_sigma
    ours_generators, theirs_generators = (
        [torch.Generator().manual_seed(seed) for seed in (1, 2)] for _ in range(2)
    )
    for t in scheduler.timesteps:
        prediction = torch.tanh(sampler.model_input(ours, t))
        seen = torch.tanh(scheduler.scale_model_input(theirs, t))
        torch.testing.assert_close(prediction, seen, rtol=0, atol=tolerance)
        ours = sampler.step(prediction, t, ours, ours_generators)
        takes_noise = "generator" in inspect.signature(scheduler.step).parameters
        drawn = {"generator": theirs_generators} if takes_noise else {}
        theirs = scheduler.step(prediction, t, theirs, **drawn).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 1000, long(999)])
def test_every_number_of_steps_can_be_gone(name: str, steps: int) -> None:
    sampler = Sampler(name, "epsilon", steps)
    x, generators = sampler.start(torch.ones(1, 4, 1, 1)), [torch.Generator().manual_seed(0)]
    for t in sampler.timesteps:
        x = sampler.step(0.1 * sampler.model_input(x, t), t, x, generators)
    assert torch.isfinite(x).all()


def test_weights_of_lms_are_the_integrals_of_lagranges_polynomials() -> None:
    scheduler = LMS()
    scheduler.sigmas = torch.tensor([4.0, 3.0, 2.0, 1.0])
    # Steps of -1: the weights of Adams-Bashforth, times -1.
    expected = {1: [1.0], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12]}
    for order, weights in expected.items():
        found = [scheduler.get_lms_coefficient(order, 2, k) for k in range(order)]
        assert found == pytest.approx([-weight for weight in weights], abs=1e-12)


def test_the_calls_of_a_model_are_counted() -> None:
    counts = {name: count_calls(name, "epsilon", 10) for name in SAMPLERS if not name.startswith("k_")}
    twice = {name: count for name, count in counts.items() if count != 10}
    assert twice == {"pndm": 11, "heun": 19, "dpm_2": 19, "dpm_2_a": 19}
    assert [count_calls(name, "epsilon", 10, 0.5) for name in ("ddim", "pndm", "heun")] == [5, 6, 9]


def test_a_flow_model_is_drawn_with_euler_steps_and_says_so_once(capsys: pytest.CaptureFixture) -> None:
    samplers._warn_of_flow.cache_clear()
    noise, picture = torch.randn(1, 4, 2, 2), torch.full((1, 4, 2, 2), 0.5)
    for _ in range(2):
        sampler = Sampler("ddim", "flow", 5)
        x = sampler.start(noise)
        for t in sampler.timesteps:
            x = sampler.step(noise - picture, t, sampler.model_input(x, t), [])
        torch.testing.assert_close(x, picture)
    assert capsys.readouterr().err == (
        "warning: the model predicts flow, so its pictures are drawn with euler steps, not ddim\n"
    )


@pytest.mark.parametrize("name", KNOW_PURE_NOISE)
def test_pictures_of_a_model_that_knows_pure_noise_begin_with_it(name: str) -> None:
    kind, settings = SAMPLERS[name]
    sampler = Sampler(name, "v", 10, zero_terminal_snr=True)
    assert sampler.timesteps[0] == 999
    assert sampler._scheduler.alphas_cumprod[-1] < 1e-7
    expected = getattr(diffusers, kind.rpartition(".")[2])(
        **settings, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    expected.set_timesteps(10)
    assert torch.equal(sampler.timesteps, expected.timesteps)
    x, generators = sampler.start(torch.ones(1, 4, 1, 1)), [torch.Generator().manual_seed(0)]
    for t in sampler.timesteps:
        x = sampler.step(0.1 * sampler.model_input(x, t), t, x, generators)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 30, 1000])
def test_a_noise_model_with_zero_terminal_snr_is_drawn_finitely(name: str, steps: int) -> None:
    sampler = Sampler(name, "epsilon", steps, zero_terminal_snr=True)
    x, generators = sampler.start(torch.ones(1, 4, 1, 1)), [torch.Generator().manual_seed(0)]
    for t in sampler.timesteps:
        x = sampler.step(0.1 * sampler.model_input(x, t), t, x, generators)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("name", ["pndm", "lms", "heun", "dpm_2", "dpm_2_a", "dpmsingle", "deis"])
def test_a_sampler_that_cannot_begin_with_pure_noise_says_so_once(
    name: str, capsys: pytest.CaptureFixture
) -> None:
    samplers._warn_of_terminal.cache_clear()
    samplers._scheduler.cache_clear()
    for _ in range(2):
        sampler = Sampler(name, "v", 5, zero_terminal_snr=True)
        assert torch.equal(sampler.timesteps, Sampler(name, "v", 5).timesteps)
    said = "cannot begin with pure noise, as the model was trained; ddim, euler and dpmsolver++ can"
    assert capsys.readouterr().err == f"warning: {name} {said}\n"
