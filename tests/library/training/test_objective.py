import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from library.options.training import ObjectiveOptions
from library.problems import UserError
from library.training.loss import mean_per_sample, min_snr_weight, squared_error
from library.training.objective import DDPM, Flow, make_objective

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "training.json").read_text())
T = torch.tensor(GOLDEN["timesteps"])


def golden(name: str) -> torch.Tensor:
    return torch.tensor(GOLDEN[name])


def test_alphas_and_snr_equal_the_reference() -> None:
    ddpm = DDPM("epsilon")
    assert_close(ddpm.alphas_cumprod[T], golden("alphas_cumprod"), rtol=1e-5, atol=1e-7)
    assert_close(ddpm.snr(T), golden("snr"), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("prediction", "name"), [("epsilon", "min_snr_gamma5_eps"), ("v", "min_snr_gamma5_v")]
)
def test_min_snr_weights_equal_the_reference(prediction: str, name: str) -> None:
    assert_close(min_snr_weight(DDPM(prediction).snr(T), 5, prediction), golden(name), rtol=1e-4, atol=1e-7)


def test_squared_error_is_taken_in_float32_and_averaged_per_sample() -> None:
    prediction = torch.tensor([[[[1.0, 3.0]]], [[[0.0, 0.0]]]], dtype=torch.bfloat16)
    loss = squared_error(prediction, torch.zeros(2, 1, 1, 2))
    assert loss.dtype == torch.float32
    assert mean_per_sample(loss).tolist() == [5.0, 0.0]


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


def test_a_flow_shift_moves_times_towards_noise() -> None:
    assert_close(Flow(3.0).sample_t(torch.tensor([0.5]), 0, 1000), torch.tensor([750.0]))


def test_the_models_prediction_type_decides_unless_flow_is_asked_for() -> None:
    assert make_objective(ObjectiveOptions(), "v").prediction == "v"
    assert make_objective(ObjectiveOptions(objective="flow"), "v").prediction == "flow"
    assert make_objective(ObjectiveOptions(), "flow").prediction == "flow"
    with pytest.raises(UserError, match="--min_snr_gamma: has no meaning for a flow model"):
        make_objective(ObjectiveOptions(min_snr_gamma=5), "flow")
