"""Frozen weights stored in float8: each layer converts its own weight to the type it computes in.

Converted weights are not saved for the backward pass, which converts them again; saving them would use the
memory that float8 frees.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

STORED = torch.float8_e4m3fn


@torch.no_grad()
def store_in_float8(layer: nn.Linear | nn.Conv2d) -> None:
    """Convert the layer's frozen weight to float8 (e4m3: 4 significant bits, up to 448)."""
    limit = torch.finfo(STORED).max
    layer.weight.data = layer.weight.data.clamp(-limit, limit).to(STORED)
    # Its class, not its `forward`: a network's module may take that, before or after this.
    layer.__class__ = Float8Conv2d if isinstance(layer, nn.Conv2d) else Float8Linear


class Float8Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return _Linear.apply(x, self.weight, self.bias)


class Float8Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return _Conv2d.apply(
            x, self.weight, self.bias, (self.stride, self.padding, self.dilation, self.groups)
        )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return grad @ weight.to(grad.dtype), None, None


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: tuple) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.settings = x.shape, settings
        return F.conv2d(x, weight.to(x.dtype), bias, *settings)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        x_grad = conv2d_input(ctx.shape, weight.to(grad.dtype), grad, *ctx.settings)
        return x_grad, None, None, None
