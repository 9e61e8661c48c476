"""Many tensors as parts of one flat tensor, so that one operator does what one per tensor would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def places_in(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat tensor, one after the other, each with a tensor's shape.

    A view has its tensor's order in memory too, where that is contiguous or channels_last: so one kernel
    copies many, and a fused optimizer finds a parameter and its gradient alike.
    """
    found, start = [], 0
    for tensor in tensors:
        part = flat[start : start + tensor.numel()]
        found.append(_like(part, tensor))
        start += tensor.numel()
    return found


def _like(part: Tensor, tensor: Tensor) -> Tensor:
    if tensor.is_contiguous() or tensor.dim() != 4:
        return part.view(tensor.shape)
    if not tensor.is_contiguous(memory_format=torch.channels_last):
        return part.view(tensor.shape)
    n, c, h, w = tensor.shape
    return part.view(n, h, w, c).permute(0, 3, 1, 2)


def flat_copies(tensors: Iterable[Tensor]) -> list[tuple[list[Tensor], Tensor]]:
    """Copies of tensors on one device, those of a type in one flat tensor: (the tensors, their copies)."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    return [(same, flat_copy(same)) for same in by_type.values()]


def flat_copy(
    tensors: Sequence[Tensor], *, dtype: torch.dtype | None = None, like: Sequence[Tensor] | None = None
) -> Tensor:
    """Copies of tensors in one flat tensor: (n,).

    dtype: of the copies; None: the tensors' own.
    like: tensors in whose order in memory the copies are; None: in their own.
    """
    flat = torch.empty(
        sum(tensor.numel() for tensor in tensors), dtype=dtype or tensors[0].dtype, device=tensors[0].device
    )
    torch._foreach_copy_(places_in(flat, like or tensors), list(tensors))
    return flat
