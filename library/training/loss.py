"""Losses and their weightings, one small function per published idea."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of every element, in float32; the arguments' shape."""
    return (prediction.float() - target.float()).square()


def mean_per_sample(loss: Tensor, masks: Tensor | None = None) -> Tensor:
    """(batch, channels, h, w) -> (batch,): the mean over all elements, each times its mask (batch, 1, h, w).

    Not renormalized: a picture with a small mask counts little, as in sd-scripts.
    """
    return (loss if masks is None else loss * masks).flatten(1).mean(1)


def min_snr_weight(snr: Tensor, gamma: float, prediction: Literal["epsilon", "v"]) -> Tensor:
    """Min-SNR weighting (Hang et al. 2023, arXiv:2303.09556): (batch,) -> (batch,).

    epsilon: min(snr, gamma) / snr. v: min(snr, gamma) / (snr + 1).
    """
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)
