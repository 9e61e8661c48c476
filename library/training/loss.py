"""Losses and their weightings, one small function per published idea."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample: (batch, ...) and (batch, ...) -> (batch,), in float32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def min_snr_weight(snr: Tensor, gamma: float, prediction: Literal["epsilon", "v"]) -> Tensor:
    """Min-SNR weighting (Hang et al. 2023, arXiv:2303.09556): (batch,) -> (batch,).

    epsilon: min(snr, gamma) / snr. v: min(snr, gamma) / (snr + 1).
    """
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)
