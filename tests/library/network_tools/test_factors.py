"""Changes as products of thin matrices, against whole decompositions and sd-scripts' figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from library.network_tools.factors import Factors, choose_rank, combine, decompose

DATA = json.loads((Path(__file__).parents[2] / "data" / "network_tools.json").read_text(encoding="utf-8"))
RESIZE = DATA["resize"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def change(shape: tuple[int, ...], rank: int, seed: int = 0) -> Factors:
    width = torch.Size(shape[1:]).numel()
    return Factors(random(shape[0], rank, seed=seed), random(rank, width, seed=seed + 1), shape)


@pytest.mark.parametrize(
    ("shape", "rank"), [((12, 7), 3), ((5, 9), 20), ((6, 4, 3, 3), 4), ((4, 6, 1, 1), 9)]
)
def test_factors_are_decomposed_as_the_whole_matrix_is(shape: tuple[int, ...], rank: int) -> None:
    factors = change(shape, rank)
    spectrum, whole = factors.decompose(), factors.weight().flatten(1)
    values = torch.linalg.svdvals(whole)
    assert_close(spectrum.values[: len(values)], values[: len(spectrum.values)], rtol=1e-4, atol=1e-4)
    assert factors.norm() == pytest.approx(float(whole.norm()), rel=1e-5)
    best = spectrum.factors(2)
    assert best.rank == 2 and best.weight().shape == shape
    assert float((best.weight() - factors.weight()).norm() / whole.norm()) == pytest.approx(
        spectrum.error(2), rel=1e-4
    )
    assert spectrum.error(2) == pytest.approx(float(values[2:].norm() / values.norm()), rel=1e-4)


def test_both_factors_are_of_one_size() -> None:
    best = change((12, 7), 5).decompose().factors(3)
    assert_close(best.up.norm(dim=0), best.down.norm(dim=1))


def test_a_sum_is_exact_whatever_the_ranks() -> None:
    changes = [change((8, 6), rank, seed=rank) for rank in (1, 3, 9)]
    assert combine(changes).rank == 13
    assert_close(combine(changes).weight(), sum(one.weight() for one in changes))
    mixed = combine([change((8, 6), 2), change((8, 6, 1, 1), 3)])
    assert mixed.shape == (8, 6, 1, 1)


@pytest.mark.parametrize("row", RESIZE["rows"], ids=str)
def test_ranks_are_chosen_as_the_rule_says(row: dict) -> None:
    spectrum = Factors(torch.tensor(RESIZE["up"]), torch.tensor(RESIZE["down"]), (8, 10)).decompose()
    rank = choose_rank(spectrum, row["most"], row["method"], row["share"] or 0.0)
    assert rank == row["rank"]
    if row["error"] is not None:
        assert spectrum.error(rank) == pytest.approx(row["error"], rel=1e-4, abs=1e-5)


def test_no_change_has_rank_one() -> None:
    nothing = Factors(torch.zeros(8, 4), torch.zeros(4, 6), (8, 6)).decompose()
    assert choose_rank(nothing, 4, "sv_fro", 0.9) == 1 and nothing.error(1) == 0
    assert choose_rank(nothing, 4, "sv_ratio", 2) == 1


@pytest.mark.parametrize("shape", [(500, 640), (448, 80, 3, 3)])
def test_large_changes_are_decomposed_within_a_percent(shape: tuple[int, ...]) -> None:
    slope = torch.arange(1, 65) ** -0.5
    matrix = random(shape[0], 64) * slope @ random(64, torch.Size(shape[1:]).numel(), seed=1)
    weight = (matrix + random(*matrix.shape, seed=2) * 0.5).view(shape)
    spectrum = decompose(weight, 16)
    values = torch.linalg.svdvals(weight.flatten(1))
    best = float(values[16:].norm() / values.norm())
    error = float((spectrum.factors(16).weight() - weight).norm() / weight.norm())
    assert best * 0.999 < error < best * 1.01
    assert spectrum.error(16) == pytest.approx(error, rel=1e-3)
    torch.rand(5)  # what was drawn before does not matter
    assert torch.equal(decompose(weight, 16).values, spectrum.values)
