"""What is trained, by the part of the model it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Component:
    """A part of what is trained. name: as people call it. is_text: whether it trains with text encoders."""

    name: str
    parameters: list[nn.Parameter]
    is_text: bool = False
