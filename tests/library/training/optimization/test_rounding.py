"""16-bit weights: stochastic rounding keeps small updates, and a step is that of float32."""

import copy
from collections.abc import Callable

import pytest
import schedulefree
import torch
from torch import nn

from library.problems import UserError
from library.training.optimization import rounding
from library.training.optimization.rounding import RoundedOptimizer, round_stochastically

HALVES = [torch.bfloat16, torch.float16]


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("value", [1.0001, -3.00007, 0.0123456, 3e-6, 5e-8, 700.3])
def test_a_number_goes_to_either_neighbour_and_stays_itself_on_average(
    value: float, dtype: torch.dtype
) -> None:
    values = torch.full((200_000,), value)
    found = round_stochastically(values, dtype, generator()).float()
    low, high = found.min().item(), found.max().item()
    assert low < values[0].item() < high
    assert set(found.tolist()) == {low, high}
    share = (values[0].item() - low) / (high - low)
    error = (high - low) * (share * (1 - share) / len(values)) ** 0.5  # standard deviation of the mean
    assert found.double().mean().item() == pytest.approx(values[0].item(), abs=5 * error)
    step = torch.tensor([low, high]).to(dtype).view(torch.int16)
    assert abs(int(step[1]) - int(step[0])) == 1  # adjacent numbers


@pytest.mark.parametrize("dtype", HALVES)
def test_numbers_of_the_type_and_no_numbers_stay_as_they_are(dtype: torch.dtype) -> None:
    exact = torch.tensor([0.0, 1.0, -0.5, 3.0, 2.0**-14, 2.0**-24, 60000.0]).to(dtype).float()
    assert torch.equal(round_stochastically(exact, dtype, generator()).float(), exact)
    odd = torch.tensor([float("inf"), float("-inf"), float("nan")])
    odd = torch.cat([odd, torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)])
    found = round_stochastically(odd, dtype, generator())
    assert found[:2].tolist() == [float("inf"), float("-inf")] and found[2:].isnan().all()


def sgd(groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=1.0)


def adamw(groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-2)


def rounded(
    parameters: list[nn.Parameter], make: Callable[[list[dict]], torch.optim.Optimizer] = sgd, **more: object
) -> RoundedOptimizer:
    return RoundedOptimizer(
        [{"params": parameters, "lr": 1.0 if make is sgd else 1e-2}], make, seed=1, **more
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_updates_of_a_ten_thousandth_add_up_where_nearest_rounding_loses_them(dtype: torch.dtype) -> None:
    """100 steps of 1e-4 on weights of 1: they should come to 0.99."""
    ours, plain = (nn.Parameter(torch.ones(10_000, dtype=dtype)) for _ in range(2))
    optimizer, nearest = rounded([ours]), sgd([{"params": [plain]}])
    for _ in range(100):
        ours.grad = torch.full_like(ours, 1e-4)
        plain.grad = torch.full_like(plain, 1e-4)
        optimizer.step()
        nearest.step()
    assert plain.float().mean().item() == 1.0
    assert ours.float().mean().item() == pytest.approx(0.99, abs=5e-4)


def test_a_step_is_that_of_float32_and_leaves_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    values = [torch.randn(size) for size in (64, 32, 96)]
    gradients = [torch.randn_like(value).bfloat16() for value in values]

    def train(dtype: torch.dtype, chunk: int) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
        monkeypatch.setattr(rounding, "CHUNK", chunk)
        weights = [nn.Parameter(value.bfloat16().to(dtype)) for value in values]
        optimizer = rounded(weights, adamw) if dtype == torch.bfloat16 else adamw([{"params": weights}])
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.to(dtype)
        optimizer.step()
        return weights, optimizer

    whole, _ = train(torch.float32, 1)
    for chunk in (1, 100, 10**6):
        weights, optimizer = train(torch.bfloat16, chunk)
        for weight, exact in zip(weights, whole, strict=True):
            assert ((weight - exact).abs() <= exact.abs() / 128).all()
        assert all(state["exp_avg"].dtype == torch.float32 for state in optimizer.inner.state.values())
        assert all(c.untyped_storage().nbytes() == 4 and c.grad is None for c in optimizer.copies.values())


def test_gradients_are_clipped_together_in_float32() -> None:
    weights = [nn.Parameter(torch.zeros(1, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = rounded(weights, max_grad_norm=1.0)
    for weight, gradient in zip(weights, (300.0, -400.0), strict=True):
        weight.grad = torch.tensor([gradient], dtype=torch.bfloat16)
    optimizer.step()
    moved = torch.cat([weight.detach() for weight in weights]).float()
    torch.testing.assert_close(moved, torch.tensor([-0.6, 0.8]), rtol=1e-2, atol=0)


def test_scaled_float16_gradients_count_although_they_are_too_small_for_float16() -> None:
    """1e-9 is 0 in float16; a gradient scaled by 65536 is not."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = nn.Parameter(torch.ones(10_000, dtype=torch.float16))
    optimizer = RoundedOptimizer([{"params": [weight], "lr": 1e5}], sgd, seed=1)
    scaler.scale((weight.float() * 1e-9).sum()).backward()
    assert weight.grad.dtype == torch.float16 and (weight.grad > 0).all()
    scaler.step(optimizer)
    scaler.update()
    assert weight.float().mean().item() == pytest.approx(1 - 1e-4, abs=2e-5)


def test_a_step_whose_gradients_overflowed_is_left_out_and_lowers_the_scale() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = nn.Parameter(torch.ones(4, dtype=torch.float16))
    optimizer = rounded([weight], max_grad_norm=1.0)
    scaler.scale((weight * 4).sum()).backward()
    assert weight.grad.isinf().all()
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [1, 1, 1, 1] and optimizer.steps == 0
    assert scaler.get_scale() == 2.0**15


def test_going_on_from_its_state_rounds_the_same() -> None:
    def train(weight: nn.Parameter, optimizer: RoundedOptimizer, steps: range) -> None:
        for step in steps:
            weight.grad = torch.full_like(weight, (-1) ** step * 0.3)
            optimizer.step()

    first = nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    optimizer = rounded([first], adamw)
    train(first, optimizer, range(3))
    second = nn.Parameter(first.detach().clone())
    resumed = rounded([second], adamw)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(first, optimizer, range(3, 6))
    train(second, resumed, range(3, 6))
    assert torch.equal(first, second)


def test_rates_set_on_it_hold_in_the_step() -> None:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = rounded([weight])
    optimizer.param_groups[0]["lr"] = 0.25
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert weight.item() == -0.25 and optimizer.param_groups[0]["momentum"] == 0


def test_optimizers_that_move_weights_between_steps_are_refused() -> None:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    with pytest.raises(UserError, match="does not work with AdamWScheduleFree"):
        RoundedOptimizer([{"params": [weight]}], schedulefree.AdamWScheduleFree, seed=1)
