"""A linear layer together with a low-rank addition: one function, with the fewest operators each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def linear_with_lora(
    x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
) -> Tensor:
    """x W^T + bias + scale * (x A^T) B^T, in x's type: (..., in) -> (..., out).

    weight: W (out, in), frozen; it may be kept in another type, float8.
    bias: (out,), frozen.
    down, up: A (rank, in) and B (out, rank), in x's type.
    """
    return _LinearWithLoRA.apply(x, weight, bias, down, up, scale)


def is_linear(layer: nn.Linear | nn.Conv2d, x: Tensor) -> bool:
    """Whether a layer is a product of matrices for x, without x being copied: a linear one, or a 1x1
    convolution of channels_last.
    """
    if isinstance(layer, nn.Linear):
        return True
    is_pointwise = (
        layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    )
    return is_pointwise and x.is_contiguous(memory_format=torch.channels_last)


class _LinearWithLoRA(torch.autograd.Function):
    """Beside the layer's own product, two more forward and four more backward. Scales and sums are part of
    products; autograd would take operators for them.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        flat, w = x.reshape(-1, x.shape[-1]), weight.to(x.dtype)
        hidden = flat @ down.T  # (n, rank)
        out = flat @ w.T if bias is None else torch.addmm(bias, flat, w.T)
        out.addmm_(hidden, up.T, alpha=scale)
        ctx.save_for_backward(x, hidden, weight, down, up)
        ctx.scale = scale
        # Not a view, so that what follows may change it in place.
        return torch.ops.aten._unsafe_view(out, [*x.shape[:-1], out.shape[-1]])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, weight, down, up = ctx.saved_tensors
        needs_x, _, _, needs_down, needs_up, _ = ctx.needs_input_grad
        flat, g = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        g_hidden = _product(g, up, ctx.scale)  # (n, rank)
        g_up = _product(g.T, hidden, ctx.scale) if needs_up else None
        g_down = g_hidden.T @ flat if needs_down else None
        if not needs_x:
            return None, None, None, g_down, g_up, None
        g_x = (g @ weight.to(g.dtype)).addmm_(g_hidden, down)
        return g_x.view(x.shape), None, None, g_down, g_up, None


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * a @ b as one operator."""
    return torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)
