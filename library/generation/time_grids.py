"""Schedules as lists of timesteps. No torch."""

from __future__ import annotations

import numpy as np

from library.models.noise_schedule import TRAIN_STEPS

_SHAPE = 0.6  # both parameters of the beta distribution, arXiv:2407.12173
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def times_of(schedule: str, steps: int) -> list[float]:
    """The times of `steps` steps, from noisy to clean, in 0..999.

    linspace: even, the first and the last time among them (k-diffusion's).
    sgm_uniform: even, without the last (Stability's).
    beta: the quantiles of beta(0.6, 0.6), whole, without doubles, so there may be fewer (ComfyUI's).
    """
    last = TRAIN_STEPS - 1
    if schedule == "linspace":
        return list(np.linspace(last, 0, steps))
    if schedule == "sgm_uniform":
        return list(np.linspace(last, 0, steps + 1)[:-1])
    assert schedule == "beta"
    times = np.rint(np.round(last * _quantiles(1 - np.arange(steps) / steps), 6))  # the median is 499.5
    return list(dict.fromkeys(times.tolist()))


def _quantiles(shares: np.ndarray) -> np.ndarray:
    """Where the distribution has these shares below, by bisection; it is symmetric."""
    low, high = np.zeros_like(shares), np.full_like(shares, 0.5)
    below = np.minimum(shares, 1 - shares)
    whole = 2 * _mass(np.array([0.5]))
    for _ in range(60):
        middle = (low + high) / 2
        is_less = _mass(middle) / whole < below
        low, high = np.where(is_less, middle, low), np.where(is_less, high, middle)
    return np.where(shares > 0.5, 1 - low, low)


def _mass(x: np.ndarray) -> np.ndarray:
    """The integral of t^(a-1) (1-t)^(a-1) from 0 to x <= 1/2, times a. With s = t^a nothing is infinite."""
    s = x[:, None] ** _SHAPE * (_NODES + 1) / 2
    values = (1 - s ** (1 / _SHAPE)) ** (_SHAPE - 1)
    return (x**_SHAPE / 2) * (values @ _WEIGHTS)
