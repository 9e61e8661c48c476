"""Many tensors cast at once: one operator each way, instead of one for each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

# Elements that are cast together where there are many. Gradients of a group come once its last one is there,
# so a group is small beside a model: gradients are exchanged between processes meanwhile.
GROUP = 2**26


def cast_together(weights: Sequence[Tensor | Sequence[Tensor]], dtype: torch.dtype) -> list[Tensor]:
    """The weights in a dtype, in their order; those that have it are given back themselves. Several in one
    place come as one: one below the other.

    Gradients of the copies come to the tensors in the tensors' own types, all together, once every copy has
    its own.
    """
    stacks = [(weight,) if isinstance(weight, Tensor) else tuple(weight) for weight in weights]
    # Frozen ones apart: beside others they would be given gradients.
    copies = [
        iter(_cast([stack for stack in stacks if _is_trained(stack) == trained], dtype))
        for trained in (False, True)
    ]
    return [next(copies[_is_trained(stack)]) for stack in stacks]


def _is_trained(stack: Sequence[Tensor]) -> bool:
    return any(tensor.requires_grad for tensor in stack)


def _cast(stacks: Sequence[Sequence[Tensor]], dtype: torch.dtype) -> list[Tensor]:
    others = [stack for stack in stacks if len(stack) > 1 or stack[0].dtype != dtype]
    flat = [tensor for stack in others for tensor in stack]
    copies = iter(_Cast.apply(dtype, tuple(map(len, others)), *flat) if others else ())
    return [next(copies) if len(stack) > 1 or stack[0].dtype != dtype else stack[0] for stack in stacks]


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
    size = 0
    for place in places:
        group.append(place)
        size += place[2].numel()
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, dtype: torch.dtype, counts: tuple[int, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """counts: how many of the tensors are stacked in each of the outputs."""
        ctx.set_materialize_grads(False)  # a copy that was not used has no gradient
        rest = iter(tensors)
        stacks = [tuple(islice(rest, count)) for count in counts]
        ctx.rows = [[len(tensor) for tensor in stack] if len(stack) > 1 else None for stack in stacks]
        ctx.types = [tensor.dtype for tensor in tensors]
        copies = [_empty(stack, dtype) for stack in stacks]
        parts = [_parts(copy, rows) for copy, rows in zip(copies, ctx.rows, strict=True)]
        torch._foreach_copy_([part for of_stack in parts for part in of_stack], list(tensors))
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        parts: list[Tensor | None] = []
        for gradient, rows in zip(gradients, ctx.rows, strict=True):
            parts += [None] * len(rows or [1]) if gradient is None else _parts(gradient, rows)
        found = [
            None if part is None else torch.empty_like(part, dtype=dtype)
            for part, dtype in zip(parts, ctx.types, strict=True)
        ]
        given = [part for part in parts if part is not None]
        torch._foreach_copy_([one for one in found if one is not None], given)
        return None, None, *found


def _empty(stack: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    first = stack[0]
    if len(stack) == 1:
        return torch.empty_like(first, dtype=dtype)
    return first.new_empty((sum(map(len, stack)), *first.shape[1:]), dtype=dtype)


def _parts(copy: Tensor, rows: list[int] | None) -> Sequence[Tensor]:
    """The tensors in a stack, by their rows; views. None: it is none."""
    return [copy] if rows is None else copy.split(rows)
