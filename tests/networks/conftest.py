"""Networks are tried on models of two levels: what they are told of blocks is tested on full-size ones."""

from __future__ import annotations

import pytest
from kinds import make_kind
from long_cases import long

from library.models.ldm.model import LatentDiffusion


@pytest.fixture(params=["sd1", long("sd2"), "sdxl"])
def kind(request: pytest.FixtureRequest) -> str:
    """Every family in turn; how a model predicts is nothing that a network knows."""
    return request.param


@pytest.fixture
def any_model(kind: str) -> LatentDiffusion:
    """A fresh tiny model of two levels of every family in turn."""
    return make_kind(kind, shallow=True)


@pytest.fixture
def tiny_model() -> LatentDiffusion:
    """A fresh tiny SD 1.x of two levels."""
    return make_kind("sd1", shallow=True)
