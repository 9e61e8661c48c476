"""Learning rates inside a network: parts, blocks, and the faster half of LoRA+."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from library.param_groups import ParamGroup
from library.network.module import NetworkModule


@dataclass(frozen=True)
class Rates:
    """How learning rates inside a network differ from those of the model's parts.

    blocks: what the rate of each block of the U-Net is multiplied by; None: the U-Net is one group.
    ratios: by part ("unet" or "te"), how much faster a module's `plus_parameters` learn (LoRA+, Hayou et al.
    2024, arXiv:2402.12354).
    """

    blocks: Sequence[float] | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)

    def groups(self, modules: Iterable[NetworkModule], parts: Mapping[str, float]) -> list[ParamGroup]:
        """Optimizer groups with the names that sd-scripts logs: text encoders first, then the U-Net's blocks.

        parts: the learning rate of each part; "te2" is that of the second text encoder where it has its own.
        """
        found: dict[tuple[int, bool], ParamGroup] = {}
        for module in modules:
            plus = module.plus_parameters() if module.part in self.ratios else []
            for parameter in module.parameters():
                is_plus = any(parameter is one for one in plus)
                place, group = self._group(module, parts, is_plus)
                if parameter.requires_grad:
                    found.setdefault((place, is_plus), group)["params"].append(parameter)
        return [found[key] for key in sorted(found)]

    def _group(
        self, module: NetworkModule, parts: Mapping[str, float], is_plus: bool
    ) -> tuple[int, ParamGroup]:
        """Where the group of a module's parameters comes among the others, and the group, still empty."""
        place, name = (-1, "textencoder") if module.part == "te" else (0, "unet")
        rate = parts[module.part]
        if module.text_encoder is not None and "te2" in parts:
            place, name = module.text_encoder - 2, f"textencoder {module.text_encoder + 1}"
            rate = parts["te2"] if module.text_encoder else rate
        if module.block is not None and self.blocks is not None:
            place, name, rate = module.block, f"unet_block{module.block}", rate * self.blocks[module.block]
        if is_plus:
            name, rate = f"{name} plus", rate * self.ratios[module.part]
        return place, {"name": name, "lr": rate, "params": []}
