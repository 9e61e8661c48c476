"""Many tensors cast at once: one operator each way, instead of one for each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Elements that are cast together where there are many. Gradients of a group come once its last one is there,
# so a group is small beside a model: gradients are exchanged between processes meanwhile.
GROUP = 2**26


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


def castable_layers(module: nn.Module) -> list[nn.Module]:
    """The layers of a module that autocast computes in 16 bits."""
    return [layer for layer in module.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]


@contextmanager
def trained_weights_in(parts: Iterable[list[nn.Module]], dtype: torch.dtype) -> Iterator[None]:
    """Inside it, layers compute with copies of their trained float32 weights in a dtype: those that autocast
    would make one by one. Forward and backward pass belong into it.

    parts: the layers of each part that a step uses whole or not at all: DDP takes weights that are cast
        together for used together.
    The layers' parameters stay what they are: a copy stands before its weight as an attribute.
    """
    by_part = [[place for layer in layers for place in _trained(layer)] for layers in parts]
    try:
        for group in (group for places in by_part for group in _groups(places)):
            copies = cast_together([weight for _, _, weight in group], dtype)
            for (layer, name, _), copy in zip(group, copies, strict=True):
                vars(layer)[name] = copy
        yield
    finally:
        for layer, name, _ in (place for places in by_part for place in places):
            vars(layer).pop(name, None)


def _trained(layer: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for name, weight in layer.named_parameters(recurse=False):
        if weight.requires_grad and weight.dtype == torch.float32:
            yield layer, name, weight


def _groups(places: Sequence[Any]) -> Iterator[list[Any]]:
    """In their order, each of GROUP elements or little more."""
    group: list[Any] = []
    for place in places:
        group.append(place)
        if sum(weight.numel() for _, _, weight in group) >= GROUP:
            yield group
            group = []
    if group:
        yield group


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
