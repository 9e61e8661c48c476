"""Losses and their weightings, one small function per published idea."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from library.models.noise_schedule import TRAIN_STEPS
from library.models.prediction import PredictionType
from library.options.objective import HuberSchedule, ObjectiveOptions

LARGEST_SNR = 1000.0  # two weightings below count a larger one as this, as sd-scripts does


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of every element, in float32; the arguments' shape."""
    return (prediction.float() - target.float()).square()


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error of every element, in float32; the arguments' shape."""
    return (prediction.float() - target.float()).abs()


def pseudo_huber(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    """2 (sqrt(d^2 + c^2) - c) of every difference d, in float32; c: (batch, 1, 1, 1).

    Near 0 it is d^2 / c, far from it 2 |d| (Charbonnier et al. 1997).
    """
    return 2 * ((squared_error(prediction, target) + c.square()).sqrt() - c)


def huber(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    """c times `pseudo_huber`, so that small errors count the same at every width."""
    return c * pseudo_huber(prediction, target, c)


# The loss of every element, from a prediction and its target; Huber losses also take their width.
ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l2": squared_error, "l1": absolute_error}
HUBER_ERRORS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "huber": huber,
    "smooth_l1": pseudo_huber,
}


def huber_width(schedule: HuberSchedule, c: float, t: Tensor, snr: Tensor) -> Tensor:
    """The width (batch,) of the Huber losses at timesteps t (batch,) in 0..1000 with signal-to-noise ratio
    snr.

    constant: c.
    exponential: from 1 at t = 0 to c at t = 1000 (arXiv:2403.16728).
    snr: (1 - c) / (1 + sigma)^2 + c with sigma = snr^-1/2, from 1 without noise to c in pure noise.
    """
    if schedule == "constant":
        return snr.new_full(snr.shape, c)
    if schedule == "exponential":
        return (t.float() * (math.log(c) / TRAIN_STEPS)).exp()
    return (1 - c) / (1 + snr.rsqrt()).square() + c


def mean_per_sample(loss: Tensor, masks: Tensor | None = None) -> Tensor:
    """(batch, channels, h, w) -> (batch,): the mean over all elements, each times its mask (batch, 1, h, w).

    Not renormalized: a picture with a small mask counts little, as in sd-scripts.
    """
    return (loss if masks is None else loss * masks).flatten(1).mean(1)


def weighting(options: ObjectiveOptions, snr: Tensor, prediction: PredictionType) -> Tensor:
    """The product of all weightings asked for, at these signal-to-noise ratios: (batch,) -> (batch,)."""
    weight = snr.new_ones(snr.shape)
    if options.min_snr_gamma:
        weight = weight * min_snr_weight(snr, options.min_snr_gamma, prediction)
    if options.soft_min_snr_gamma:
        weight = weight * soft_min_snr_weight(snr, options.soft_min_snr_gamma, prediction)
    if options.p2_gamma:
        weight = weight * p2_weight(snr, options.p2_gamma, prediction)
    if options.scale_v_pred_loss_like_noise_pred:
        weight = weight * v_like_noise_weight(snr)
    if options.v_pred_like_loss:
        weight = weight * (1 + options.v_pred_like_loss / v_like_noise_weight(snr))
    if options.debiased_estimation_loss:
        weight = weight * debiased_weight(snr, prediction)
    if options.debiased_exact:
        weight = weight * exact_debiased_weight(snr, prediction)
    if options.flow_weighting is not None:
        weight = weight * FLOW_WEIGHTS[options.flow_weighting](1 / (1 + snr.sqrt()))
    return weight


# Each weighting below is one of the error of the predicted noise. Where v or the flow is predicted, it is the
# one that makes the same of it: `like_noise` times the noise's.


def like_noise(snr: Tensor, prediction: PredictionType) -> Tensor:
    """What makes the squared error of a prediction that of the noise, for equal noisy pictures: (batch,) ->
    (batch,).

    epsilon: 1. v: snr / (snr + 1). flow: (1 - s)^2, with time s and snr = ((1 - s) / s)^2.
    """
    if prediction == "epsilon":
        return snr.new_ones(snr.shape)
    root = snr.sqrt()
    return snr / (snr + 1) if prediction == "v" else (root / (1 + root)).square()


def min_snr_weight(snr: Tensor, gamma: float, prediction: PredictionType) -> Tensor:
    """Min-SNR weighting (Hang et al. 2023, arXiv:2303.09556): (batch,) -> (batch,).

    epsilon: min(snr, gamma) / snr, which is 1 at snr = 0. v: min(snr, gamma) / (snr + 1). flow: min(snr,
    gamma) s^2.
    """
    if prediction == "v":
        return snr.clamp(max=gamma) / (snr + 1)
    return gamma / snr.clamp(min=gamma) * like_noise(snr, prediction)


def soft_min_snr_weight(snr: Tensor, gamma: float, prediction: PredictionType) -> Tensor:
    """Min-SNR without a corner (Crowson et al. 2024, arXiv:2401.11605, section 3.4): (batch,) -> (batch,).

    epsilon: gamma / (snr + gamma). v: times snr / (snr + 1). flow: times (1 - s)^2.
    """
    return gamma / (snr + gamma) * like_noise(snr, prediction)


def p2_weight(snr: Tensor, gamma: float, prediction: PredictionType) -> Tensor:
    """P2 weighting with k = 1 (Choi et al. 2022, arXiv:2204.00227, eq. 8): (batch,) -> (batch,).

    epsilon: (1 + snr)^-gamma. v: times snr / (snr + 1). flow: times (1 - s)^2.
    """
    return (1 + snr) ** -gamma * like_noise(snr, prediction)


def v_like_noise_weight(snr: Tensor) -> Tensor:
    """snr / (snr + 1), which makes the squared error of v that of the noise: (batch,) -> (batch,)."""
    snr = snr.clamp(max=LARGEST_SNR)
    return snr / (snr + 1)


def debiased_weight(snr: Tensor, prediction: PredictionType) -> Tensor:
    """Debiased estimation (Yu et al. 2023, arXiv:2310.08442): (batch,) -> (batch,).

    epsilon: 1 / sqrt(snr). v: 1 / (snr + 1), as sd-scripts has it. flow: s (1 - s).
    """
    if prediction == "flow":
        return exact_debiased_weight(snr, prediction)
    snr = snr.clamp(max=LARGEST_SNR)
    return snr.rsqrt() if prediction == "epsilon" else 1 / (snr + 1)


def exact_debiased_weight(snr: Tensor, prediction: PredictionType) -> Tensor:
    """Debiased estimation, the same for every prediction: (batch,) -> (batch,).

    epsilon: 1 / sqrt(snr). v: sqrt(snr) / (snr + 1). flow: s (1 - s).
    """
    if prediction == "epsilon":
        return debiased_weight(snr, prediction)
    root = snr.sqrt()
    return root / (snr + 1) if prediction == "v" else root / (1 + root).square()


# Those of flow models at times s (batch,) (arXiv:2403.03206, section 3.1), as sd-scripts' --weighting_scheme.
FLOW_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "cosmap": lambda s: 2 / (math.pi * (1 - 2 * s + 2 * s.square())),
    "sigma_sqrt": lambda s: s**-2,
}
