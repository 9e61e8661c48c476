"""Groups of parameters that learn at one rate, as optimizers take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import nn


class ParamGroup(TypedDict):
    """A group of an optimizer.

    params: what is trained.
    lr: its learning rate.
    name: what logs call it, after `lr/`.
    """

    params: list[nn.Parameter]
    lr: float
    name: str
