"""Learning rates inside a network: parts, blocks, and the faster half of LoRA+."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from library.param_groups import ParamGroup
from library.network.module import NetworkModule
from library.network.patterns import Rules, first_rule


@dataclass(frozen=True)
class Rates:
    """How learning rates inside a network differ from those of the model's parts.

    blocks: what the rate of each block of the U-Net is multiplied by; None: the U-Net is one group.
    ratios: by part ("unet" or "te"), how much faster a module's `plus_parameters` learn (LoRA+, Hayou et al.
    2024, arXiv:2402.12354).
    rules: rates of layers by their paths, before all others.
    """

    blocks: Sequence[float] | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    rules: Rules[float] = ()

    def groups(self, modules: Iterable[NetworkModule], parts: Mapping[str, float]) -> list[ParamGroup]:
        """Optimizer groups with the names that sd-scripts logs: text encoders first, then the U-Net's blocks,
        then the rules.

        parts: the learning rate of each part; "te2" is that of the second text encoder where it has its own.
        """
        found: dict[tuple[bool, int, bool, float], ParamGroup] = {}
        for module in modules:
            plus = module.plus_parameters() if module.part in self.ratios else []
            rule = first_rule(self.rules, module.points[0])
            for parameter in module.parameters():
                is_plus = any(parameter is one for one in plus)
                place, group = self._group(module, parts, is_plus, rule)
                if parameter.requires_grad:
                    key = (rule is not None, place, is_plus, group["lr"])
                    found.setdefault(key, group)["params"].append(parameter)
        return [found[key] for key in sorted(found)]

    def _group(
        self,
        module: NetworkModule,
        parts: Mapping[str, float],
        is_plus: bool,
        rule: tuple[int, float] | None,
    ) -> tuple[int, ParamGroup]:
        """Where the group of a module's parameters comes among the others, and the group, still empty."""
        place, name = (-1, "textencoder") if module.part == "te" else (0, "unet")
        rate = parts[module.part]
        if module.text_encoder is not None and "te2" in parts:
            place, name = module.text_encoder - 2, f"textencoder {module.text_encoder + 1}"
            rate = parts["te2"] if module.text_encoder else rate
        if module.block is not None and self.blocks is not None:
            place, name, rate = module.block, f"unet_block{module.block}", rate * self.blocks[module.block]
        if rule is not None:
            place, name, rate = rule[0], f"reg_lr_{rule[0]}", rule[1]
        if is_plus:
            name, rate = f"{name} plus", rate * self.ratios[module.part]
        return place, {"name": name, "lr": rate, "params": []}
