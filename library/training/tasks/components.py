"""What is trained, by the part of the model it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


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
