"""The lms sampler: diffusers' scheduler with exact integrals, so that it needs no scipy."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from numpy.polynomial import Polynomial
from torch import Tensor


class LMS(LMSDiscreteScheduler):
    """The linear multistep method (Adams-Bashforth of order up to 4) over sigma."""

    def step(self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, **more: Any) -> Any:
        """As diffusers', but also right where the first step is not the schedule's first: its order is that
        of the derivatives that there are.
        """
        return super().step(model_output, timestep, sample, min(len(self.derivatives) + 1, 4), **more)

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """The weight of the derivative `current_order` steps ago in step t: the integral, from sigma_t to
        sigma_{t+1}, of the Lagrange polynomial that is 1 at that derivative's sigma and 0 at the others'.
        """
        sigmas = self.sigmas[max(0, t - order + 1) : t + 2].tolist()[::-1]  # from sigma_{t+1} backwards
        return _weights(tuple(sigmas))[current_order]


@lru_cache(maxsize=1000)  # they depend on the schedule alone, which all pictures of a run share
def _weights(sigmas: tuple[float, ...]) -> list[float]:
    """The weights of all derivatives, the last one first. sigmas: the next, the present and earlier ones."""
    return [_weight(sigmas[0], sigmas[1:], place) for place in range(len(sigmas) - 1)]


def _weight(end: float, sigmas: tuple[float, ...], place: int) -> float:
    basis, own = Polynomial([1.0]), np.float64(sigmas[place])
    for sigma in (sigma for other, sigma in enumerate(sigmas) if other != place):
        basis *= Polynomial([-sigma, 1.0]) / (own - sigma)
    integral = basis.integ()
    return float(integral(end) - integral(sigmas[0]))
