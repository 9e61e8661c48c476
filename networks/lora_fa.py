"""LoRA-FA (Zhang et al. 2023, arXiv:2308.03303): a LoRA whose A stays as it began; only B is trained.

What is not trained has no gradients and no optimizer state, and layers need not keep their inputs for the
backward pass. Files are those of LoRA.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import nn

from library.models.base import AttachPoint, Model
from library.network.additive import PLAIN, Variant
from library.network.additive_kinds import (
    AdditiveArguments,
    create_additive,
    read_additive,
    warn_of_idle_additions,
)
from library.network.arguments import LORAPLUS
from library.network.network import Network
from library.network.sizes import Size
from networks.lora import KIND, LoRAModule, from_file, maker

__all__ = ["check_arguments", "create", "from_file"]

_ONE_MATRIX = "LoRA+ lets one matrix learn faster than the other, and LoRA-FA trains one"
_ALL_MATRICES = "LoRA-FA trains B alone"
REFUSED = {**dict.fromkeys(LORAPLUS, _ONE_MATRIX), "use_tucker": _ALL_MATRICES}


class LoRAFAModule(LoRAModule):
    """As a LoRA in use. In training A is constant."""

    forward_together = staticmethod(LoRAModule.forward_together)

    def __init__(self, point: AttachPoint, size: Size, variant: Variant = PLAIN) -> None:
        super().__init__(point, size, variant)
        self.lora_down.requires_grad_(False)

    def initialize_factors(self, generator: torch.Generator) -> None:
        """A normal with a variance of 2 / (in + rank), B zero."""
        super().initialize_factors(generator)
        deviation = (2 / (self.layer.weight.shape[1] + self.rank)) ** 0.5
        nn.init.normal_(self.lora_down.weight, std=deviation, generator=generator)

    def scale_change(self, factor: torch.Tensor) -> None:
        self.lora_up.weight.mul_(factor)


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that LoRA-FA does not know or cannot have."""
    warn_of_idle_additions(_read(arguments))


def create(
    model: Model,
    *,
    dim: int | None,
    alpha: float | None,
    dropout: float | None,
    arguments: dict[str, str],
    parts: Collection[str],
    seed: int,
    like: Path | None = None,
) -> Network:
    """A new LoRA-FA for a model, see `NetworkFactory.create`."""
    asked, make = _read(arguments), maker(LoRAFAModule, like)
    return create_additive(
        *(model, KIND, asked, make), dim=dim, alpha=alpha, dropout=dropout, parts=parts, seed=seed, like=like
    )


def _read(arguments: Mapping[str, str]) -> AdditiveArguments:
    return AdditiveArguments(**read_additive(arguments, "networks.lora_fa", refused=REFUSED))
