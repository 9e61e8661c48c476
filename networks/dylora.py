"""DyLoRA (Valipour et al. 2022, arXiv:2210.07558), as sd-scripts trains it: some ranks learn at a time.

In each call a module draws `unit` neighbouring ranks; only they get gradients, and what all ranks add counts
sqrt(rank / (number of ranks up to the last one drawn)) as much. Files are those of LoRA, of which
`networks/extract_lora_from_dylora.py` cuts smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from library.models.base import AttachPoint, Model
from library.network.additive import PLAIN, Variant
from library.network.additive_kinds import (
    ADDITIVE_READERS,
    AdditiveArguments,
    create_additive,
    read_additive,
    warn_of_idle_additions,
)
from library.network.network import Network
from library.network.sizes import Size
from library.problems import UserError
from networks.lora import KIND, LoRAModule, from_file, maker

__all__ = ["check_arguments", "create", "from_file"]

REFUSED = {
    "use_tucker": "ranks of a Tucker decomposition depend on one another",
    "dora_wd": "its magnitudes would be those of one set of ranks, and another is trained in each step",
    "wd_on_output": "it is about dora_wd, which DyLoRA cannot have",
}


@dataclass(frozen=True)
class DyLoRAArguments(AdditiveArguments):
    """What --network_args ask of a DyLoRA.

    unit: how many ranks are trained at a time; it divides the rank.
    """

    unit: int = 1


class DyLoRAModule(LoRAModule):
    """As a LoRA in use. In training one block of `unit` ranks learns in each call."""

    def __init__(self, point: AttachPoint, size: Size, variant: Variant = PLAIN, *, unit: int = 1) -> None:
        super().__init__(point, size, variant)
        if size.rank % unit:
            cause = f"{unit} does not divide the rank {size.rank} of {point.path}"
            raise UserError.of("--network_args unit", cause, "choose a unit that divides every rank")
        self.unit = unit

    @property
    def drops(self) -> bool:
        return self.training or super().drops

    def added(self, out: Tensor, x: Tensor, strength: float) -> Tensor:
        if not self.training:
            return super().added(out, x, strength)
        first = self.draw()
        down, up = self.factors(x.dtype)
        learning = slice(first, first + self.unit)
        hidden = self._hidden(x, _only(down, learning, 0))
        addition = self._product(self._drop(hidden), _only(up, learning, 1))
        factor = sqrt(self.rank / (first + self.unit))
        return torch.add(out, addition, alpha=self.scale * factor * strength)

    def draw(self) -> int:
        """The first of the ranks that learn in this call. It is drawn on the host: no device waits for it."""
        return int(torch.randint(self.rank // self.unit, ())) * self.unit


def _only(weight: Tensor, learning: slice, dim: int) -> Tensor:
    """The same values, of which only some rows or columns get gradients."""
    before, own, behind = weight.split(
        [learning.start, learning.stop - learning.start, weight.shape[dim] - learning.stop], dim
    )
    return torch.cat([before.detach(), own, behind.detach()], dim)


def check_arguments(arguments: dict[str, str]) -> None:
    """Raises UserError for --network_args that DyLoRA does not know or cannot have."""
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
    """A new DyLoRA for a model, see `NetworkFactory.create`."""
    asked = _read(arguments)
    make: Callable[[AttachPoint, Size, Variant], LoRAModule] = partial(DyLoRAModule, unit=asked.unit)
    return create_additive(
        *(model, KIND, asked, maker(make, like)),
        dim=dim,
        alpha=alpha,
        dropout=dropout,
        parts=parts,
        seed=seed,
        like=like,
    )


def _read(arguments: Mapping[str, str]) -> DyLoRAArguments:
    readers = ADDITIVE_READERS | {"unit": ADDITIVE_READERS["conv_dim"]}
    return DyLoRAArguments(**read_additive(arguments, "networks.dylora", readers, REFUSED))
