import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from library.options.objective import ObjectiveOptions
from library.problems import UserError
from library.training.diffusion.objective import DDPM, Flow, make_objective

GOLDEN = json.loads((Path(__file__).parents[3] / "data" / "training.json").read_text())
T = torch.tensor(GOLDEN["timesteps"])


def golden(name: str) -> torch.Tensor:
    return torch.tensor(GOLDEN[name])


def test_alphas_and_snr_equal_the_reference() -> None:
    ddpm = DDPM("epsilon")
    assert_close(ddpm.alphas_cumprod[T], golden("alphas_cumprod"), rtol=1e-5, atol=1e-7)
    assert_close(ddpm.snr(T), golden("snr"), rtol=1e-4, atol=1e-7)


def test_zero_terminal_snr_equals_the_reference_and_its_snr_matches() -> None:
    ddpm = DDPM("v", ends_in_noise=True)
    expected = golden("ztsnr_alphas_cumprod")
    assert_close(ddpm.alphas_cumprod[T], expected, rtol=1e-4, atol=1e-7)
    assert (
        ddpm.alphas_cumprod[999] == ddpm.snr(T)[-1] == 0
    )  # sd-scripts weights with the SNR before rescaling
    assert_close(ddpm.snr(T), expected / (1 - expected), rtol=2e-4, atol=1e-7)
    x0, noise, last = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2), torch.tensor([999])
    assert torch.equal(ddpm.noisy(x0, noise, last), noise)
    assert torch.equal(ddpm.target(x0, noise, last), -x0)


def test_ddpm_mixes_picture_and_noise_by_their_roots() -> None:
    ddpm, t = DDPM("epsilon"), torch.tensor([500])
    a = ddpm.alphas_cumprod[500]
    x0, noise = torch.full((1, 4, 1, 1), 2.0), torch.full((1, 4, 1, 1), -1.0)
    assert_close(ddpm.noisy(x0, noise, t), (2 * a.sqrt() - (1 - a).sqrt()).expand(1, 4, 1, 1))


def test_epsilon_asks_for_the_noise_and_v_for_the_rotation() -> None:
    x0, noise, t = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([10, 900])
    assert DDPM("epsilon").target(x0, noise, t) is noise
    v = DDPM("v")
    x, target = v.noisy(x0, noise, t), v.target(x0, noise, t)
    a = v.alphas_cumprod[t].view(-1, 1, 1, 1)
    assert_close(a.sqrt() * x - (1 - a).sqrt() * target, x0)  # x0 from v: Salimans & Ho 2022
    assert_close((1 - a).sqrt() * x + a.sqrt() * target, noise)


def test_timesteps_fill_their_range_and_never_reach_its_end() -> None:
    u = torch.tensor([0.0, 0.5, 1 - 2**-24])
    assert DDPM("epsilon").sample_t(u, 0, 1000).tolist() == [0, 500, 999]
    assert DDPM("epsilon").sample_t(u, 200, 201).tolist() == [200, 200, 200]


def test_flow_walks_from_the_picture_to_the_noise() -> None:
    flow = Flow()
    x0, noise = torch.zeros(1, 4, 1, 1), torch.full((1, 4, 1, 1), 8.0)
    t = flow.sample_t(torch.tensor([0.25]), 0, 1000)
    assert t.tolist() == [250.0]
    assert flow.noisy(x0, noise, t).unique().tolist() == [2.0]
    assert flow.target(x0, noise, t).unique().tolist() == [8.0]
    assert_close(flow.snr(t), torch.tensor([9.0]))


def test_a_flow_shift_moves_the_steps_of_denoising_towards_noise() -> None:
    assert Flow(3.0).schedule(2) == [1000.0, 750.0]
    assert Flow().schedule(4) == [1000.0, 750.0, 500.0, 250.0]


def test_the_models_prediction_type_decides_unless_flow_is_asked_for() -> None:
    assert make_objective(ObjectiveOptions(), "v").prediction == "v"
    assert make_objective(ObjectiveOptions(objective="flow"), "v").prediction == "flow"
    assert make_objective(ObjectiveOptions(), "flow").prediction == "flow"


@pytest.mark.parametrize(
    ("changes", "prediction", "said"),
    [
        ({"v_pred_like_loss": 0.1}, "flow", "--v_pred_like_loss: has no meaning for a flow model"),
        ({"flow_weighting": "cosmap"}, "v", "--flow_weighting: is for flow models; this one predicts v"),
        ({"zero_terminal_snr": True}, "flow", "--zero_terminal_snr: has no meaning for a flow model"),
        (
            {"scale_v_pred_loss_like_noise_pred": True},
            "epsilon",
            "--scale_v_pred_loss_like_noise_pred: is for models that predict v",
        ),
        ({"v_pred_like_loss": 0.1}, "v", "--v_pred_like_loss: is for models that predict the noise"),
        (
            {"zero_terminal_snr": True, "debiased_estimation_loss": True},
            "epsilon",
            "--zero_terminal_snr: with --debiased_estimation_loss",
        ),
    ],
)
def test_options_that_mean_nothing_for_what_is_predicted_are_refused(
    changes: dict, prediction: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        make_objective(ObjectiveOptions(**changes), prediction)


def test_a_noise_model_with_zero_terminal_snr_is_warned_of(capsys: pytest.CaptureFixture) -> None:
    make_objective(ObjectiveOptions(zero_terminal_snr=True), "v")
    assert capsys.readouterr().err == ""
    make_objective(ObjectiveOptions(zero_terminal_snr=True), "epsilon")
    assert "teaches a model that predicts the noise nothing at the last timestep" in capsys.readouterr().err
