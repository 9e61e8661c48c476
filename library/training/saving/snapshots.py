"""Copies of what is trained, written while training goes on, and the check that all of it is numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from library.models.deferred import Deferred, computed
from library.models.shards import shares
from library.problems import UserError

CHUNK = 2**26  # bytes that are copied from a device at once


@torch.no_grad()
def copied(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Copies of the tensors on the CPU; several share memory.

    dtype: of every tensor; None keeps theirs.

    A device is waited for once for each CHUNK, not for each of a network's thousands of tensors.
    """
    copies: dict[str, Tensor] = {}
    for names in _chunks(tensors):
        given = [tensors[name].detach().reshape(-1) for name in names]
        sizes = [tensor.numel() for tensor in given]
        flat = torch.empty(sum(sizes), dtype=dtype or given[0].dtype, device=given[0].device)
        parts = torch.cat(given, out=flat).cpu().split(sizes)
        copies |= {name: part.view(tensors[name].shape) for name, part in zip(names, parts, strict=True)}
    return {name: copies[name] for name in tensors}


def require_finite(tensors: Mapping[str, Tensor], step: int, dtype: torch.dtype | None = None) -> None:
    """Raises UserError when a trained weight is no number, also in the file's dtype: it is never saved.

    One look at the largest value tells: a norm passes NaN on, and rounding keeps the order of values.
    """
    weights = {key: value for key, value in tensors.items() if value.is_floating_point() and value.numel()}
    deferred = {key: weights.pop(key) for key in list(weights) if isinstance(weights[key], Deferred)}
    broken = [key for key, value in deferred.items() if not _are_finite([computed(value)], dtype)]
    if not broken and all(_are_finite(list(group.values()), dtype) for group in _by_kind(weights)):
        return
    broken += [key for key, value in weights.items() if not value.to(dtype or value.dtype).isfinite().all()]
    cause = f"{len(broken)} trained tensors are no numbers any more, e.g. {broken[0]}; they were not saved"
    raise UserError.of(f"step {step}", cause, "lower the learning rate and go on from an earlier save")


@torch.no_grad()
def _are_finite(tensors: list[Tensor], dtype: torch.dtype | None) -> bool:
    largest = get_total_norm([tensor.detach() for tensor in tensors], torch.inf)
    return bool(largest.to(dtype or tensors[0].dtype).isfinite())


def _by_kind(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors of each device and dtype."""
    found: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found.setdefault((tensor.device, tensor.dtype), {})[name] = tensor
    return list(found.values())


def _chunks(tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """The names of tensors of one device and dtype, CHUNK bytes of them at a time."""
    for group in _by_kind(tensors):
        yield from shares({name: tensor.nbytes for name, tensor in group.items()}, CHUNK)
