"""Losses and weightings against golden values and values computed by hand."""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from library.options.objective import ObjectiveOptions
from library.training.diffusion.loss import (
    ERRORS,
    HUBER_ERRORS,
    debiased_weight,
    huber_width,
    mean_per_sample,
    min_snr_weight,
    squared_error,
    v_like_noise_weight,
    weighting,
)
from library.training.diffusion.objective import DDPM

GOLDEN = json.loads((Path(__file__).parents[3] / "data" / "training.json").read_text())
T = torch.tensor(GOLDEN["timesteps"])
SNR = DDPM("epsilon").snr(T)


def close_to_golden(value: torch.Tensor, name: str) -> None:
    assert_close(value, torch.tensor(GOLDEN[name]), rtol=1e-4, atol=1e-7)


def test_min_snr_weights_equal_the_reference() -> None:
    close_to_golden(min_snr_weight(SNR, 5, "epsilon"), "min_snr_gamma5_eps")
    close_to_golden(min_snr_weight(SNR, 5, "v"), "min_snr_gamma5_v")


def test_debiased_weights_equal_the_reference() -> None:
    close_to_golden(debiased_weight(SNR, "epsilon"), "debiased_eps")
    close_to_golden(debiased_weight(SNR, "v"), "debiased_v")


def test_weights_between_noise_and_v_equal_the_reference() -> None:
    close_to_golden(v_like_noise_weight(SNR), "scale_v_pred_like_noise")
    close_to_golden(weighting(ObjectiveOptions(v_pred_like_loss=0.1), SNR, "epsilon"), "v_pred_like_loss_0.1")


def test_weightings_multiply() -> None:
    both = ObjectiveOptions(min_snr_gamma=5, debiased_estimation_loss=True)
    expected = torch.tensor(GOLDEN["min_snr_gamma5_eps"]) * torch.tensor(GOLDEN["debiased_eps"])
    assert_close(weighting(both, SNR, "epsilon"), expected, rtol=1e-4, atol=1e-7)
    scaled = ObjectiveOptions(scale_v_pred_loss_like_noise_pred=True)
    close_to_golden(weighting(scaled, SNR, "v"), "scale_v_pred_like_noise")


WEIGHTS = json.loads((Path(__file__).parents[3] / "data" / "timesteps.json").read_text())["weights"]
# The golden name of each weighting, by what is predicted.
GAMMAS = {"min_snr_gamma": 5.0, "soft_min_snr_gamma": 5.0, "p2_gamma": 1.0}
GOLDEN_NAMES = {
    ("min_snr_gamma", "epsilon"): "min_snr5_eps",
    ("min_snr_gamma", "v"): "min_snr5_v",
    ("min_snr_gamma", "flow"): "min_snr5_flow min(snr,5)*s^2",
    ("soft_min_snr_gamma", "epsilon"): "soft_min_snr5_eps g/(s+g)",
    ("soft_min_snr_gamma", "v"): "soft_min_snr5_v",
    ("soft_min_snr_gamma", "flow"): "soft_min_snr5_flow",
    ("p2_gamma", "epsilon"): "p2_g1_eps 1/(1+s)",
    ("p2_gamma", "v"): "p2_g1_v s/(1+s)^2",
    ("p2_gamma", "flow"): "p2_g1_flow (1-s)^2/(1+snr)",
    ("debiased_exact", "v"): "debiased_v_exact sqrt(s)/(s+1)",
    ("debiased_exact", "flow"): "debiased_flow sqrt(snr)*s^2=s(1-s)",
    ("debiased_estimation_loss", "flow"): "debiased_flow sqrt(snr)*s^2=s(1-s)",
    ("flow_weighting=cosmap", "flow"): "cosmap density 2/(pi(1-2s+2s^2))",
    ("flow_weighting=sigma_sqrt", "flow"): "sigma_sqrt s^-2",
}


@pytest.mark.parametrize(("name", "prediction"), GOLDEN_NAMES)
def test_weightings_of_every_prediction_equal_the_reference(name: str, prediction: str) -> None:
    rows = WEIGHTS["flow" if prediction == "flow" else "ddpm"]
    snr = torch.tensor([row["snr"] for row in rows.values()], dtype=torch.float64)
    option, _, value = name.partition("=")
    options = ObjectiveOptions(**{option: value or GAMMAS.get(option, True)})
    expected = torch.tensor(
        [row[GOLDEN_NAMES[name, prediction]] for row in rows.values()], dtype=torch.float64
    )
    assert_close(weighting(options, snr, prediction), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("option", ["min_snr_gamma", "soft_min_snr_gamma", "p2_gamma", "debiased_exact"])
def test_a_weighting_counts_equal_errors_alike_whatever_is_predicted(option: str) -> None:
    """At one noisy picture, an error of x0 is one of the noise, of v and of the flow (equal signal-to-noise
    ratio, noise of unit variance or the flow's).
    """
    snr = torch.logspace(-3, 3, 13, dtype=torch.float64)
    options = ObjectiveOptions(**{option: GAMMAS.get(option, True)})
    errors = {
        "epsilon": snr,
        "v": snr + 1,
        "flow": (1 + snr.sqrt()).square(),
    }  # squared, for an error 1 of x0
    found = [weighting(options, snr, kind) * error for kind, error in errors.items()]
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])


def test_a_timestep_without_signal_counts_finitely() -> None:
    zero = torch.zeros(1)
    assert min_snr_weight(zero, 5, "epsilon").tolist() == [1.0]
    assert min_snr_weight(zero, 5, "v").tolist() == [0.0]
    assert debiased_weight(zero, "v").tolist() == [1.0]
    assert v_like_noise_weight(zero).tolist() == [0.0]
    assert huber_width("snr", 0.1, torch.tensor([999]), zero).tolist() == [pytest.approx(0.1)]


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
def test_huber_widths_equal_the_reference(schedule: str) -> None:
    close_to_golden(huber_width(schedule, 0.1, T, SNR), f"huber_c0.1_{schedule}_scale1.0")


def test_losses_equal_the_reference() -> None:
    prediction, target, c = torch.full((1, 1, 1, 1), 0.75), torch.full((1, 1, 1, 1), 0.25), torch.tensor(0.1)
    found = {name: error(prediction, target).item() for name, error in ERRORS.items()}
    found |= {name: error(prediction, target, c).item() for name, error in HUBER_ERRORS.items()}
    assert found == pytest.approx(GOLDEN["loss_at_diff0.5_c0.1"], rel=1e-5)


def test_each_sample_has_its_own_width() -> None:
    prediction, target = torch.full((2, 1, 1, 2), 3.0), torch.zeros(2, 1, 1, 2)
    c = torch.tensor([4.0, 0.0]).view(2, 1, 1, 1)
    # 2 (sqrt(9 + 16) - 4) and 2 (3 - 0)
    assert HUBER_ERRORS["smooth_l1"](prediction, target, c).flatten(1).tolist() == [[2, 2], [6, 6]]
    assert HUBER_ERRORS["huber"](prediction, target, c).flatten(1).tolist() == [[8, 8], [0, 0]]


def test_squared_error_is_taken_in_float32_and_averaged_per_sample() -> None:
    prediction = torch.tensor([[[[1.0, 3.0]]], [[[0.0, 0.0]]]], dtype=torch.bfloat16)
    loss = squared_error(prediction, torch.zeros(2, 1, 1, 2))
    assert loss.dtype == torch.float32
    assert mean_per_sample(loss).tolist() == [5.0, 0.0]
