"""The lms sampler: diffusers' scheduler with exact integrals, so that it needs no scipy."""

from __future__ import annotations

import numpy as np
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from numpy.polynomial import Polynomial


class LMS(LMSDiscreteScheduler):
    """The linear multistep method (Adams-Bashforth of order up to 4) over sigma."""

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """The weight of the derivative `current_order` steps ago in step t: the integral, from sigma_t to
        sigma_{t+1}, of the Lagrange polynomial that is 1 at that derivative's sigma and 0 at the others'.
        """
        sigmas = self.sigmas.numpy().astype(np.float64)
        own = sigmas[t - current_order]
        basis = Polynomial([1.0])
        for sigma in (sigmas[t - k] for k in range(order) if k != current_order):
            basis *= Polynomial([-sigma, 1.0]) / (own - sigma)
        integral = basis.integ()
        return float(integral(sigmas[t + 1]) - integral(sigmas[t]))
