"""Additive modules beside single layers, as the numbers of other programs have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from network_contract import point_at
from torch import Tensor, nn

from library.network.additive import AdditiveModule, Variant
from library.network.sizes import Size
from networks import loha, lokr, lora

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "additive_networks.json").read_text())
MODULES: dict[str, dict[str, Any]] = GOLDEN["modules"]
_MAKERS = {
    "loha": lambda _: loha._maker(None),
    "doha": lambda _: loha._maker(None),
    "lokr": lambda asked: lokr._maker(asked, None),
    "dokr": lambda asked: lokr._maker(asked, None),
}


def layer_of(entry: dict[str, Any]) -> nn.Linear | nn.Conv2d:
    """The frozen layer of an entry of MODULES."""
    weight = torch.tensor(entry["W"])
    layer: nn.Linear | nn.Conv2d
    if weight.ndim == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        side = weight.shape[-1]
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], side, padding=side // 2)
    layer.weight.data, layer.bias.data = weight, torch.tensor(entry["bias"])
    return layer.requires_grad_(False)


def module_of(name: str, **changes: Any) -> AdditiveModule:
    """The module of an entry, new. changes: of its variant."""
    entry = MODULES[name]
    args = {key: value for key, value in entry["args"].items() if value is not None}
    axis = ("output" if args.get("wd_on_out") else "input") if args.get("weight_decompose") else None
    variant = Variant(
        is_tucker=bool(args.get("use_tucker")), has_scalar=bool(args.get("use_scalar")), dora=axis, **changes
    )
    names = ("factor", "full_matrix", "decompose_both", "unbalanced_factorization")
    asked = lokr.LoKrArguments(**{key: args[key] for key in names if key in args})
    make = _MAKERS.get(name[:4], lambda _: lora.maker(lora.LoRAModule, None))(asked)
    size = Size(args["lora_dim"], entry["alpha"])
    return make(point_at(layer_of(entry)), size, variant, {})


def filled_module(name: str, **changes: Any) -> AdditiveModule:
    """The same with the entry's values."""
    entry, module = MODULES[name], module_of(name, **changes)
    for key, value in entry["parameters"].items():
        own = module.get_parameter(key)
        own.data = torch.tensor(value).reshape(own.shape)
    return module.eval()


@torch.no_grad()
def output(module: AdditiveModule, x: Tensor, strength: float = 1.0) -> Tensor:
    """What the layer gives with the module attached."""
    module.multiplier = strength
    module.attach()
    try:
        return module.layer(x)
    finally:
        module.detach()
