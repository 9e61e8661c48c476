"""Tensors that are computed only when their values are asked for.

Weights that are shared out among processes are saved by the code that saves all others: it renames, joins and
casts them, and a file's header needs no more than their shapes. Their values are gathered when they are
written, one after the other, so that no process ever holds all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

_NO_CHANGE = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)


class Deferred(Tensor):
    """A tensor on the CPU without values. What is done with it is deferred too; `computed` gives its values.

    compute: gives its values.
    accept: takes the values that are copied into it; None: it takes none.
    """

    compute: Callable[[], Tensor]
    accept: Callable[[Tensor], None] | None

    @staticmethod
    def __new__(cls, like: Tensor, *_: object, requires_grad: bool = False, **__: object) -> Deferred:
        return Tensor._make_wrapper_subclass(
            cls,
            like.shape,
            like.stride(),
            dtype=like.dtype,
            device=torch.device("cpu"),
            requires_grad=requires_grad,
        )

    def __init__(
        self,
        like: Tensor,
        compute: Callable[[], Tensor],
        accept: Callable[[Tensor], None] | None = None,
        *,
        requires_grad: bool = False,
    ) -> None:
        """like: has its shape, strides and type."""
        self.compute, self.accept = compute, accept

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"Deferred({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch gives no arguments where there are none
        cls, func: Any, types: Iterable[type], given: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        if func is torch.ops.aten.copy_.default:
            own, values = given[0], given[1]
            assert own.accept is not None, "it takes no values"
            own.accept(computed(values))
            return own
        assert not func._schema.is_mutable, f"{func} cannot be deferred"
        if func in _NO_CHANGE:
            (own,) = given
            return cls(_outline(own), own.compute, own.accept)
        there = {"device": torch.device("meta")} if options.get("device") is not None else {}
        outline = func(*tree_map(_outline, given), **tree_map(_outline, options) | there)

        def compute() -> Any:
            return func(*tree_map(computed, given), **tree_map(computed, options))

        if isinstance(outline, Tensor):
            return cls(outline, compute)
        return [cls(one, partial(_nth, compute, number)) for number, one in enumerate(outline)]


def _nth(compute: Callable[[], Any], number: int) -> Tensor:
    return compute()[number]


def computed(value: Any) -> Any:
    """The values of a deferred tensor, in memory of their own; anything else is given back."""
    return value.compute() if isinstance(value, Deferred) else value


def _outline(value: Any) -> Any:
    """A tensor's shape, strides and type without values; anything else is given back."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
