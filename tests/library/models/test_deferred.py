"""Tensors that are computed when their values are asked for."""

from __future__ import annotations

import torch

from library.models.deferred import Deferred, computed


def test_what_is_done_with_a_deferred_tensor_is_done_when_its_values_are_asked_for() -> None:
    asked: list[str] = []

    def values() -> torch.Tensor:
        asked.append("once")
        return torch.arange(6.0).view(2, 3)

    tensor = Deferred(torch.empty(2, 3, device="meta"), values, requires_grad=True)
    joined = torch.cat([tensor.detach().to(torch.float16), torch.ones(1, 3, dtype=torch.float16)]).T[1:]
    first, second = joined.contiguous().split(1)
    assert tensor.requires_grad and not asked
    assert (first.shape, first.dtype, first.nbytes) == ((1, 3), torch.float16, 6)
    assert computed(second).tolist() == [[2.0, 5.0, 1.0]] and asked == ["once"]


def test_values_copied_into_one_go_to_who_accepts_them() -> None:
    given: list[torch.Tensor] = []
    tensor = Deferred(torch.empty(2, device="meta"), lambda: torch.zeros(2), given.append)
    tensor.detach().copy_(torch.tensor([1.0, 2.0]))
    assert given[0].tolist() == [1.0, 2.0]
