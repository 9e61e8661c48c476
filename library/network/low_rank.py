"""Linear layers together with their low-rank additions: one function, with the fewest operators each way."""

from __future__ import annotations

from collections.abc import Sequence
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
    return linears_with_lora(x, [weight], [bias], down, [up], [scale])[0]


def linears_with_lora(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    down: Tensor,
    ups: Sequence[Tensor],
    scales: Sequence[float],
) -> tuple[Tensor, ...]:
    """The same for several layers that are given the same x; one output for each.

    down: their A's, one below the other: (sum of ranks, in).
    """
    return _LinearsWithLoRA.apply(x, down, tuple(scales), *weights, *ups, *biases)


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


class _LinearsWithLoRA(torch.autograd.Function):
    """Beside the layers' own products, one more forward and two more backward, and for each layer one more
    forward and two more backward. Scales and sums are part of products; autograd would take operators for
    them.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, down: Tensor, scales: tuple[float, ...], *layers: Any
    ) -> tuple[Tensor, ...]:
        """layers: the weights, the ups and the biases."""
        count = len(scales)
        weights, ups, biases = layers[:count], layers[count : 2 * count], layers[2 * count :]
        flat = x.reshape(-1, x.shape[-1])
        hidden = flat @ down.T  # (n, sum of ranks)
        outs = []
        for weight, bias, up, scale, own in zip(
            weights, biases, ups, scales, _columns(hidden, ups), strict=True
        ):
            w = weight.to(x.dtype).T
            out = flat @ w if bias is None else torch.addmm(bias, flat, w)
            out.addmm_(own, up.T, alpha=scale)
            # Not a view, so that what follows may change it in place.
            outs.append(torch.ops.aten._unsafe_view(out, [*x.shape[:-1], out.shape[-1]]))
        # Where A is frozen (LoRA-FA), x is not needed: only its shape.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, hidden, down, *weights, *ups)
        ctx.scales, ctx.shape = scales, x.shape
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.scales)
        x, hidden, down, *layers = ctx.saved_tensors
        weights, ups = layers[:count], layers[count:]
        needs_x, needs_down, _, *needs = ctx.needs_input_grad
        g_hidden, g_x = torch.empty_like(hidden), None
        g_ups: list[Tensor | None] = []
        for number, (grad, own, g_own) in enumerate(
            zip(gradients, _columns(hidden, ups), _columns(g_hidden, ups), strict=True)
        ):
            g, scale = grad.reshape(-1, grad.shape[-1]), ctx.scales[number]
            g_own.addmm_(g, ups[number], beta=0, alpha=scale)
            g_ups.append(_product(g.T, own, scale) if needs[count + number] else None)
            if needs_x:
                w = weights[number].to(g.dtype)
                g_x = g @ w if g_x is None else g_x.addmm_(g, w)
        g_down = g_hidden.T @ x.reshape(-1, x.shape[-1]) if needs_down else None
        if g_x is not None:
            g_x = g_x.addmm_(g_hidden, down).view(ctx.shape)
        return g_x, g_down, None, *[None] * count, *g_ups, *[None] * count


def _columns(hidden: Tensor, ups: Sequence[Tensor]) -> list[Tensor]:
    """Each layer's columns of what is hidden: views of (n, its rank)."""
    found, start = [], 0
    for up in ups:
        found.append(hidden.narrow(1, start, up.shape[1]))
        start += up.shape[1]
    return found


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * a @ b as one operator."""
    return torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)
