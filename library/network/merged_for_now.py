"""Networks as part of a model's weights for a while: they cost nothing at a step, and can be changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from library.network.network import Network


class MergedForNow:
    """Networks that are merged with the multipliers they have, from the model's own weights each time.

    A copy of every weight that they change is kept.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks
        self._own: dict[Tensor, Tensor] = {}
        self._multipliers: list[float] | None = None
        for network in networks:
            for module in network.by_name.values():
                module.check_merge()
                for point in module.points:
                    self._own.setdefault(point.module.weight, point.module.weight.detach().clone())

    @torch.no_grad()
    def update(self) -> None:
        """Merge anew where a multiplier has changed."""
        modules = [module for network in self.networks for module in network.by_name.values()]
        multipliers = [module.multiplier for module in modules]
        if multipliers == self._multipliers:
            return
        for weight, own in self._own.items():
            weight.copy_(own)
        for module in modules:
            if module.multiplier:
                module.merge()
        self._multipliers = multipliers
