"""Many tensors cast at once: one operator each way, instead of one for each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def cast_together(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The tensors in a dtype, in their order; those that have it are given back themselves.

    Gradients of the copies come to the tensors in the tensors' own types, all together, once every copy has
    its own.
    """
    found = list(tensors)
    others = [number for number, tensor in enumerate(found) if tensor.dtype != dtype]
    if others:
        copies = _Cast.apply(dtype, *(found[number] for number in others))
        for number, copy in zip(others, copies, strict=True):
            found[number] = copy
    return found


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # a copy that was not used has no gradient
        ctx.types = [tensor.dtype for tensor in tensors]
        return tuple(_cast(tensors, [dtype] * len(tensors)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [number for number, gradient in enumerate(gradients) if gradient is not None]
        found: list[Tensor | None] = [None] * len(gradients)
        given = [gradient for gradient in gradients if gradient is not None]
        for number, gradient in zip(there, _cast(given, [ctx.types[n] for n in there]), strict=True):
            found[number] = gradient
        return None, *found


def _cast(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    copies = [torch.empty_like(one, dtype=dtype) for one, dtype in zip(tensors, dtypes, strict=True)]
    torch._foreach_copy_(copies, list(tensors))
    return copies
