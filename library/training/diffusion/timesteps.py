"""Which timesteps are trained how often: quantile functions of the one uniform number that a sample draws.

x is in 0..1, from a clean picture to noise; u is in [0, 1). A quantile function Q gives x = Q(u), so that a
sample's timestep stays a function of its key, and a range of timesteps cuts a distribution off without
changing its shape.
"""

from __future__ import annotations

import importlib
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import NormalDist

from library.options.objective import ObjectiveOptions
from library.problems import UserError

Quantile = Callable[[float], float]  # u -> x, rising

_NORMAL = NormalDist()
_LEAST = 2.0**-60  # the least u, where a quantile function has no value at 0
_HALVINGS = 60


class Timesteps:
    """From a sample's uniform number to where its timestep lies in the range that is trained.

    quantile: of the distribution over all timesteps.
    low, high: the range, in 0..1; the distribution is cut off there.
    """

    def __init__(self, quantile: Quantile, low: float = 0.0, high: float = 1.0) -> None:
        self.quantile, self.low, self.high = quantile, low, high
        self._shares = share_below(quantile, low), share_below(quantile, high)

    def __call__(self, u: float) -> float:
        """The place in the range, 0 at its low end to 1 at its high one."""
        first, last = self._shares
        x = self.quantile(first + u * (last - first))
        return min(1.0, max(0.0, (x - self.low) / (self.high - self.low)))


def timesteps_of(options: ObjectiveOptions, log_snr: Sequence[float] | None) -> Timesteps | None:
    """How a run draws its timesteps; None: evenly.

    log_snr: of the timesteps of DDPM, falling; None: of flow models.
    Raises UserError for a distribution that needs a package which is not there.
    """
    name, shift = options.timestep_distribution, options.timestep_shift
    quantile = even if name == "uniform" else _named(name, options.distribution_numbers, log_snr)
    if quantile is even and shift == 1:
        return None
    low, high = (bound / 1000 for bound in options.timestep_range)
    return Timesteps(partial(shifted, quantile, shift), low, high)


def _named(name: str, settings: Mapping[str, float], log_snr: Sequence[float] | None) -> Quantile:
    if name in _OF_LOG_SNR:
        at: Quantile = _time_of_flow if log_snr is None else partial(_nearest_timestep, log_snr)
        return partial(_by_log_snr, partial(_OF_LOG_SNR[name], **settings), at)
    if name == "beta":
        _check_scipy(settings)
    return partial(QUANTILES[name], **settings)


def share_below(quantile: Quantile, x: float) -> float:
    """The cumulative distribution F(x), of its quantile function by halving."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    return _solved(quantile, x)


def _solved(rising: Callable[[float], float], value: float) -> float:
    """Where in 0..1 a rising function has a value."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2


# Quantile functions.


def even(u: float) -> float:
    return u


def logit_normal(u: float, mean: float, std: float) -> float:
    """The sigmoid of a normal number (Esser et al. 2024, arXiv:2403.03206, section 3.1); above 0: noisier."""
    return _sigmoid(mean + std * _probit(u))


def mode(u: float, scale: float) -> float:
    """With heavy tails (arXiv:2403.03206, eq. 20): scale > 0 has more in the middle, < 0 at the ends."""
    w = 1 - u
    return 1 - w - scale * (math.cos(math.pi * w / 2) ** 2 - 1 + w)


def cosine(u: float) -> float:
    """The density 2 / (pi (1 - 2x + 2x^2)) (arXiv:2403.03206, eq. 21, CosMap)."""
    return 1 - 1 / (math.tan(math.pi * u / 2) + 1)


def beta(u: float, alpha: float, beta: float) -> float:
    """The density x^(alpha - 1) (1 - x)^(beta - 1)."""
    if beta == 1:
        return u ** (1 / alpha)
    if alpha == 1:
        return 1 - (1 - u) ** (1 / beta)
    from scipy.special import betaincinv

    return float(betaincinv(alpha, beta, u))


def sigmoid_curve(u: float, weight: float, centre: float) -> float:
    """The density 1 / (1 + e^(-weight (x - centre)))."""
    if weight == 0:
        return u
    first = math.log1p(math.exp(-weight * centre))
    last = math.log1p(math.exp(weight * (1 - centre)))
    return centre + math.log(math.expm1(first + u * (last - first))) / weight


def parabola(u: float, weight: float, centre: float) -> float:
    """The density max(0, 2 - weight (x - centre)^2)."""
    reach = math.sqrt(2 / weight) if weight > 0 else math.inf
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)

    def share(x: float) -> float:  # of what lies between low and x
        return 2 * (x - low) - weight * ((x - centre) ** 3 - (low - centre) ** 3) / 3

    return low + (high - low) * _solved(lambda part: share(low + part * (high - low)), u * share(high))


def exponential(u: float, rate: float) -> float:
    """The density e^(-rate x), cut off at 1; rate < 0 favours noise."""
    return u if rate == 0 else -math.log1p(u * math.expm1(-rate)) / rate


def shifted(quantile: Quantile, shift: float, u: float) -> float:
    """Moved towards noise: x -> shift x / (1 + (shift - 1) x) (arXiv:2403.03206, eq. 23)."""
    x = quantile(u)
    return shift * x / (1 + (shift - 1) * x)


QUANTILES: dict[str, Callable[..., float]] = {
    "logit_normal": logit_normal,
    "mode": mode,
    "cosine": cosine,
    "beta": beta,
    "sigmoid_curve": sigmoid_curve,
    "parabola": parabola,
    "exponential": exponential,
}


# Distributions of the logarithm of the signal-to-noise ratio, which falls with x.


def laplace(u: float, mean: float, scale: float) -> float:
    """Laplace's distribution (Hang et al. 2024, arXiv:2407.03297)."""
    side = 1 if u < 0.5 else -1
    return mean - scale * side * math.log(max(1 - 2 * abs(u - 0.5), _LEAST))


def normal(u: float, mean: float, std: float) -> float:
    """A normal one, as for styles (Choi et al. 2024, arXiv:2411.14793)."""
    return mean - std * _probit(u)


_OF_LOG_SNR: dict[str, Callable[..., float]] = {"laplace": laplace, "log_snr": normal}


def _by_log_snr(log_snr: Quantile, at: Quantile, u: float) -> float:
    return at(log_snr(u))


def _time_of_flow(log_snr: float) -> float:
    """x of rectified flow, whose ratio is ((1 - x) / x)^2."""
    return _sigmoid(-log_snr / 2)


def _nearest_timestep(table: Sequence[float], log_snr: float) -> float:
    """x of the timestep of DDPM whose logarithm is nearest, in the middle between it and the next.

    table: of all timesteps, falling.
    """
    after = bisect_left(table, -log_snr, key=lambda value: -value)  # the first that is not above it
    if after == 0 or after == len(table):
        return (min(after, len(table) - 1) + 0.5) / len(table)
    above, below = table[after - 1], table[after]
    part = (above - log_snr) / (above - below) if math.isfinite(below) else 0.0
    return (after - 1 + part + 0.5) / len(table)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def _probit(u: float) -> float:
    """The normal distribution's quantile function."""
    return _NORMAL.inv_cdf(min(max(u, _LEAST), 1 - 2.0**-53))


def _check_scipy(settings: Mapping[str, float]) -> None:
    if 1 in settings.values():
        return
    try:
        importlib.import_module("scipy")
    except ImportError:
        raise UserError.of(
            "--timestep_distribution beta",
            "needs the package scipy unless alpha or beta is 1",
            "pip install scipy",
        ) from None
