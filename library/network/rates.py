"""Learning rates inside a network: parts, blocks, and the faster half of LoRA+."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from library.network.base import NetworkModule


@dataclass(frozen=True)
class Rates:
    """How they differ from those of the whole part.

    blocks: what the rate of each block of the U-Net is multiplied by; None: it is one group.
    ratios: by part ("unet" or "te"), how much faster a module's `plus_parameters` learn (LoRA+, Hayou et al.
    2024, arXiv:2402.12354).
    """

    blocks: Sequence[float] | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)

    def groups(
        self, modules: Mapping[str, NetworkModule], parts: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        """Optimizer groups with the names that sd-scripts logs, text encoders first, then the U-Net's blocks.

        modules: by name. parts: the learning rate of each part.
        """
        found: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, module in modules.items():
            part = part_of(name)
            plus = module.plus_parameters() if part in self.ratios else []
            for parameter in module.parameters():
                is_plus = any(parameter is one for one in plus)
                place, group = self._group(part, module.block, parts[part], is_plus)
                if parameter.requires_grad:
                    found.setdefault((place, is_plus), group | {"params": []})["params"].append(parameter)
        return [found[key] for key in sorted(found)]

    def _group(self, part: str, block: int | None, rate: float, is_plus: bool) -> tuple[int, dict[str, Any]]:
        """Where a group comes among the others, its name and its rate."""
        place, name = (-1, "textencoder") if part == "te" else (0, "unet")
        if part == "unet" and self.blocks is not None:
            assert block is not None
            place, name, rate = block, f"unet_block{block}", rate * self.blocks[block]
        if is_plus:
            name, rate = f"{name} plus", rate * self.ratios[part]
        return place, {"name": name, "lr": rate}


def part_of(name: str) -> str:
    """The model part a module name belongs to: "unet" or "te"."""
    return "te" if name.startswith(("lora_te", "te")) else "unet"
