"""Norms of gradients, clipping, and whether they are numbers: all of it on the device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def gradients_of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients of those parameters that have one."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The L2 norm of all gradients together: a scalar, float32 whatever their types."""
    return torch.linalg.vector_norm(gradient_norms(gradients_of(parameters)))


def gradient_norms(gradients: list[Tensor]) -> Tensor:
    """The L2 norm of each gradient: (k,) float32 whatever their types."""
    return torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32))


def clip_factor(norm: Tensor, limit: float) -> Tensor:
    """The factor by which torch.nn.utils.clip_grad_norm_ scales gradients of this norm; of any shape."""
    return (limit / (norm + 1e-6)).clamp(max=1)


def is_not_finite(norm: Tensor) -> Tensor:
    """Whether a scalar is infinite or NaN: a bool scalar, by fewer operators than `isfinite` has."""
    return (norm - norm).ne(0)
