"""What is trained: its optimizer groups, and the parts of the model it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

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


@dataclass(frozen=True)
class Component:
    """A part of what is trained, a row of the ledger.

    name: as people call it.
    parameters: what of it is trained.
    is_text: whether it gets gradients only while the text encoders do.
    """

    name: str
    parameters: list[nn.Parameter]
    is_text: bool = False


def text_encoder_name(number: int, count: int) -> str:
    """What people call the (0-based) n-th of a model's `count` text encoders."""
    return f"text encoder {number + 1}" if count > 1 else "text encoder"
