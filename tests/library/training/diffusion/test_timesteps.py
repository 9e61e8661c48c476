"""Distributions of timesteps against golden values, their own formulas, and what a range leaves of them."""

from __future__ import annotations

import json
import math
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from long_cases import long

from library.options.objective import ObjectiveOptions
from library.problems import UserError
from library.training.diffusion.noise import NoiseDraw
from library.training.diffusion.objective import DDPM, Flow, make_timesteps
from library.training.diffusion.strata import Strata
from library.training.diffusion.timesteps import Timesteps, share_below

GOLDEN = json.loads((Path(__file__).parents[3] / "data" / "timesteps.json").read_text())
U = GOLDEN["u"]


def drawn(name: str, *arguments: str, prediction: str = "flow", **options: object) -> Timesteps:
    given = {"timestep_distribution": name, "timestep_distribution_args": arguments, **options}
    found = make_timesteps(ObjectiveOptions(**given), prediction)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "row", GOLDEN["flow"], ids=lambda row: "-".join([row["distribution"], *row["arguments"]])
)
def test_quantiles_are_the_golden_ones(row: dict) -> None:
    times = drawn(row["distribution"], *row["arguments"])
    assert [times(u) for u in U] == pytest.approx(row["x"], rel=1e-9, abs=1e-10)


def test_a_shift_and_a_range_are_the_golden_ones() -> None:
    shifted = drawn("logit_normal", timestep_shift=3)
    assert [shifted(u) for u in U] == pytest.approx(GOLDEN["shifted"]["x"], rel=1e-9)
    truncated = drawn("logit_normal", min_timestep=200, max_timestep=800)
    assert [0.2 + 0.6 * truncated(u) for u in U] == pytest.approx(GOLDEN["truncated"]["x"], rel=1e-9)
    both = drawn("uniform", timestep_shift=3, min_timestep=200, max_timestep=800)
    assert (both(0), both(1)) == pytest.approx((0, 1), abs=1e-12)
    # Of x = 3u / (1 + 2u), 0.2 to 0.8 is u = 1/13 to 4/7.
    middle = (1 / 13 + 4 / 7) / 2
    assert 0.2 + 0.6 * both(0.5) == pytest.approx(3 * middle / (1 + 2 * middle))


def test_a_parabola_is_that_of_a_table() -> None:
    times = drawn("parabola", "weight=7.7")
    assert [1000 * times(u) for u in U] == pytest.approx(GOLDEN["parabola of weight 7.7, of 1000"], abs=1.1)


def test_a_noise_models_timesteps_have_the_nearest_ratio() -> None:
    times = drawn("laplace", prediction="epsilon")
    expected = GOLDEN["laplace, timesteps of DDPM"]
    assert [1000 * times(u) - 0.5 for u in U] == pytest.approx(expected, abs=1e-4)
    drawn_t = DDPM("epsilon").sample_t(torch.tensor([times(u) for u in U]), 0, 1000)
    assert drawn_t.tolist() == [round(t) for t in expected]
    ends = make_timesteps(ObjectiveOptions(timestep_distribution="log_snr"), "v", ends_in_noise=True)
    assert ends is not None and 0.99 < ends(1 - 1e-9) <= 1


# A density (up to a factor) for each distribution; x in 0..1.
DENSITIES = {
    ("logit_normal", "mean=0.3", "std=0.8"): lambda x: (
        math.exp(-((math.log(x / (1 - x)) - 0.3) ** 2) / (2 * 0.8**2)) / (x * (1 - x))
    ),
    ("cosine",): lambda x: 1 / (1 - 2 * x + 2 * x * x),
    ("beta", "alpha=0.8", "beta=1"): lambda x: x**-0.2,
    ("beta", "alpha=2", "beta=3"): lambda x: x * (1 - x) ** 2,
    ("sigmoid_curve", "weight=5", "centre=0.3"): lambda x: 1 / (1 + math.exp(-5 * (x - 0.3))),
    ("parabola", "weight=20", "centre=0.2"): lambda x: max(0.0, 2 - 20 * (x - 0.2) ** 2),
    ("exponential", "rate=-4"): lambda x: math.exp(4 * x),
}
RANGES = [(0, 1000), (150, 700)]


def total(density: object, low: float, high: float, parts: int = 20) -> float:
    """The integral, by the middle of many small parts."""
    width = (high - low) / parts
    return width * sum(density(low + (part + 0.5) * width) for part in range(parts))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "draws"),
    [(name, 20_000) for name in DENSITIES] + [long(name, 1_000_000) for name in DENSITIES],
)
@pytest.mark.parametrize("bounds", RANGES)
def test_a_histogram_of_timesteps_is_the_density_cut_off(name: tuple, draws: int, bounds: tuple) -> None:
    """By the largest distance of the cumulative shares (Kolmogorov and Smirnov), with stratified numbers, so
    that 20,000 are as good as they can be.
    """
    low, high = bounds
    times = drawn(*name, prediction="epsilon", min_timestep=low, max_timestep=high)
    x = torch.tensor([times((n + 0.5) / draws) for n in range(draws)])
    counts = torch.bincount(DDPM("epsilon").sample_t(x, low, high), minlength=1000).double()
    assert counts[:low].sum() == counts[high:].sum() == 0
    expected = torch.tensor(
        [total(DENSITIES[name], t / 1000, (t + 1) / 1000) if low <= t < high else 0.0 for t in range(1000)]
    )
    distance = (counts.cumsum(0) / draws - expected.cumsum(0) / expected.sum()).abs().max()
    assert distance < 0.002


def test_quantiles_rise_and_shares_are_their_inverse() -> None:
    for name in DENSITIES:
        quantile = drawn(*name).quantile
        found = [quantile(n / 50) for n in range(51)]
        assert all(one <= other for one, other in pairwise(found)), name
        assert found[0] >= 0 and found[-1] <= 1
        assert share_below(quantile, quantile(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
@pytest.mark.parametrize(
    "name", ["laplace", "log_snr", *sorted({name[0] for name in DENSITIES} - {"parabola"})]
)
def test_the_ends_of_the_uniform_number_are_timesteps(name: str, prediction: str) -> None:
    needed = {"sigmoid_curve": ["weight=5"], "exponential": ["rate=3"]}
    times = drawn(name, *needed.get(name, []), prediction=prediction)
    ends = torch.tensor([times(0.0), times(1 - 2.0**-53), times(1.0)])
    objective = Flow() if prediction == "flow" else DDPM("epsilon")
    t = objective.sample_t(ends, 0, 1000)
    assert t.isfinite().all() and t.min() >= 0 and t.max() <= (1000 if prediction == "flow" else 999)


def test_even_timesteps_stay_as_they_were() -> None:
    assert make_timesteps(ObjectiveOptions(), "epsilon") is None
    assert make_timesteps(ObjectiveOptions(min_timestep=5), "flow") is None


def test_draws_are_a_function_of_the_key_and_survive_the_way_to_a_loader() -> None:
    times = drawn("beta", "alpha=2", "beta=1", prediction="epsilon")
    plain, shaped = NoiseDraw(3), NoiseDraw(3, None, True, times, Strata(["a"] * 8, 3))
    again = pickle.loads(pickle.dumps(shaped))
    first, second = shaped(2, 7, (4, 2, 2)), again(2, 7, (4, 2, 2))
    assert first.u == second.u != plain(2, 7, (4, 2, 2)).u
    assert torch.equal(first.noise, plain(2, 7, (4, 2, 2)).noise)


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("beta", "alpha=0", "alpha expects a number from 0.001 to 100"),
        ("mode", "scale=1.8", "scale expects a number from -1 to 1.75194"),
        ("exponential", "", "exponential needs rate=X"),
        ("logit_normal", "m=1", "logit_normal has no 'm'; it has mean, std"),
        ("cosine", "mean=1", "cosine has no 'mean'; it has none"),
        ("uniform", "mean=1", "uniform has no 'mean'"),
        ("laplace", "mean", "expects name=value, got 'mean'"),
        ("laplace", "mean=nan", "mean expects a number"),
        ("parabola", "weight=50 centre=9", "leaves no timestep"),
    ],
)
def test_a_wrong_distribution_is_one_line(name: str, number: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        ObjectiveOptions(timestep_distribution=name, timestep_distribution_args=tuple(number.split()))
    (problem,) = caught.value.problems
    assert str(problem).startswith("--timestep_distribution_args: ") and said in str(problem)


def test_strata_cover_the_range_in_each_epoch_and_a_picture_walks_through_it() -> None:
    groups = ["few"] * 4 + ["many"] * 16
    strata = Strata(groups, seed=5)
    for epoch in range(3):
        for members in (range(4), range(4, 20)):
            parts = sorted(int(len(members) * strata(0.999, epoch, sample)) for sample in members)
            assert parts == list(range(len(members)))
    walk = sorted(strata(0.5, epoch, 7) for epoch in range(16))
    assert max(later - sooner for sooner, later in pairwise([0.0, *walk, 1.0])) < 0.15
    assert [Strata(groups, 5)(0.1, 3, n) for n in range(20)] == [strata(0.1, 3, n) for n in range(20)]
    assert [Strata(groups, 6)(0.1, 3, n) for n in range(20)] != [strata(0.1, 3, n) for n in range(20)]
    alone = Strata(["one"], 5)
    assert alone(0.25, 4, 0) == 0.25
