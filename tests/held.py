"""Weights that the test's one process has whole."""

from __future__ import annotations

from accelerate import Accelerator

from library.training.session import Session
from library.training.sharding.whole import Weights


def whole() -> Weights:
    return Weights(Session(Accelerator(cpu=True), 0, None))
