"""The noise options add what they say to a sample's noise, and leave all other draws alone."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from library.options.objective import ObjectiveOptions
from library.training.diffusion.noise import (
    NoiseDraw,
    SampleDraws,
    adaptive_strength,
    complete_noise,
    level_sizes,
    noise_of_levels,
    unit_variance,
)

SHAPE = (4, 16, 24)


def draws(*, sample: int = 7, **options: object) -> SampleDraws:
    return NoiseDraw(3, ObjectiveOptions(**options))(2, sample, SHAPE)


PLAIN = draws()


@pytest.mark.parametrize(
    "options",
    [
        {"noise_offset": 0.1},
        {"noise_offset": 0.1, "noise_offset_random_strength": True},
        {"noise_offset": 0.1, "adaptive_noise_scale": 0.1},
        {"multires_noise_iterations": 6},
        {"multires_noise_iterations": 6, "multires_noise_discount": 0.8},
        {"ip_noise_gamma": 0.1},
        {"ip_noise_gamma": 0.1, "ip_noise_gamma_random_strength": True},
    ],
    ids=lambda options: "+".join(options),
)
def test_noise_is_a_function_of_its_keys_and_other_draws_stay(options: dict) -> None:
    one, again, other = draws(**options), draws(**options), draws(sample=8, **options)
    assert torch.equal(one.noise, again.noise) and not torch.equal(one.noise, other.noise)
    assert one.u == PLAIN.u and torch.equal(one.posterior, PLAIN.posterior)
    assert torch.equal(one.noise, PLAIN.noise) is ("ip_noise_gamma" in options or one.offset is not None)


def test_a_noise_offset_is_one_number_for_each_channel_times_its_strength() -> None:
    weak, strong = (draws(noise_offset=strength).noise - PLAIN.noise for strength in (0.1, 0.2))
    assert_close(weak, weak[:, :1, :1].expand(SHAPE), rtol=0, atol=1e-6)
    assert_close(strong, 2 * weak, rtol=1e-4, atol=1e-6)
    many = torch.stack([draws(noise_offset=0.1, sample=n).noise for n in range(300)])
    added = (many - torch.stack([draws(sample=n).noise for n in range(300)]))[:, :, 0, 0]
    assert added.std().item() == pytest.approx(0.1, rel=0.1)


def test_a_random_strength_lies_between_nothing_and_the_offset() -> None:
    found = []
    for sample in range(200):
        full = draws(noise_offset=0.1, sample=sample).noise - draws(sample=sample).noise
        part = draws(noise_offset=0.1, noise_offset_random_strength=True, sample=sample).noise
        found.append(((part - draws(sample=sample).noise)[0, 0, 0] / full[0, 0, 0]).item())
    assert min(found) > -1e-3 and max(found) < 1.001
    assert sum(found) / len(found) == pytest.approx(0.5, abs=0.07)


def test_the_input_is_disturbed_by_so_much_more_noise_that_the_target_lacks() -> None:
    one = draws(ip_noise_gamma=0.1)
    assert torch.equal(one.noise, PLAIN.noise)
    assert one.disturbance.std().item() == pytest.approx(0.1, rel=0.1)
    part = draws(ip_noise_gamma=0.1, ip_noise_gamma_random_strength=True).disturbance
    share = (part / one.disturbance).flatten()
    assert 0 < share[0] < 1
    assert_close(share, share[:1].expand(len(share)), rtol=1e-3, atol=0)


def test_resolutions_shrink_by_powers_until_a_side_is_one() -> None:
    assert level_sizes((4, 16, 24), [3.0, 2.0, 4.0, 2.5, 3.0]) == [(16, 24), (8, 12), (1, 1)]
    assert level_sizes((4, 16, 24), [2.0, 2.0]) == [(16, 24), (8, 12)]
    assert level_sizes((4, 64, 64), [4.0, 4.0, 2.0, 4.0]) == [(64, 64), (16, 16), (16, 16), (1, 1)]


def test_each_resolution_is_enlarged_and_counts_less_than_the_one_before() -> None:
    total = noise_of_levels((1, 2, 4), [(2, 4), (1, 1)], 0.5, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    full = torch.randn(1, 1, 2, 4, generator=generator)[0]
    flat = torch.randn(1, 1, 1, 1, generator=generator)[0]
    assert_close(total, full + 0.5 * flat)


def test_noise_of_several_resolutions_has_unit_variance_with_its_offset() -> None:
    one = draws(multires_noise_iterations=6, multires_noise_discount=0.9, noise_offset=0.5)
    assert one.noise.std().item() == pytest.approx(1)
    low = torch.nn.functional.avg_pool2d
    assert low(one.noise, 8).std() > 2 * low(PLAIN.noise, 8).std()


def test_an_adaptive_offset_follows_the_latents() -> None:
    x0 = torch.tensor([[-2.0, 4.0], [0.0, 0.0]]).view(2, 2, 1, 1).expand(2, 2, 2, 2)
    strength = torch.tensor([0.1, 0.1]).view(2, 1, 1, 1)
    assert_close(adaptive_strength(strength, 0.5, x0).flatten(1), torch.tensor([[1.1, 2.1], [0.1, 0.1]]))
    assert adaptive_strength(strength, -1.0, x0).flatten(1).tolist()[0] == [0.0, 0.0]


def test_an_adaptive_offset_of_nothing_is_the_plain_one() -> None:
    options = ObjectiveOptions(noise_offset=0.1, adaptive_noise_scale=0, multires_noise_iterations=4)
    waiting = NoiseDraw(3, options)(2, 7, SHAPE)
    plain = draws(noise_offset=0.1, multires_noise_iterations=4)
    assert_close(complete_noise(waiting.noise, waiting.offset, options), plain.noise)


def test_unit_variance_is_of_each_sample() -> None:
    noise = torch.randn(2, 4, 8, 8) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    assert_close(unit_variance(noise).flatten(1).std(1), torch.ones(2))
