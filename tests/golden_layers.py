"""Layers with networks whose outputs other programs computed: tests/data/rotations.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from network_contract import point_at
from torch import Tensor, nn
from torch.testing import assert_close

from library.models.base import AttachPoint
from library.network.module import NetworkModule


@cache
def golden(section: str) -> dict[str, dict[str, Any]]:
    """The entries of a section, by name."""
    return json.loads((Path(__file__).parent / "data" / "rotations.json").read_text())[section]


def layer_of(entry: Mapping[str, Any]) -> nn.Linear | nn.Conv2d:
    """The layer that an entry is about; a convolution keeps the size of pictures."""
    weight = torch.tensor(entry["W"])
    out, into, *kernel = weight.shape
    layer = nn.Conv2d(into, out, tuple(kernel), padding=kernel[0] // 2) if kernel else nn.Linear(into, out)
    layer.weight.data = weight
    if "bias" in entry:
        layer.bias.data = torch.tensor(entry["bias"])
    return layer


@torch.no_grad()
def check_layer(
    entry: Mapping[str, Any], make: Callable[[AttachPoint], NetworkModule], tensors: Mapping[str, Tensor]
) -> None:
    """A module with these tensors gives what the entry says: attached, at half its strength, and merged."""
    layer = layer_of(entry)
    module = make(point_at(layer))
    own = module.state_dict()
    assert own.keys() == tensors.keys()
    for key, value in tensors.items():
        own[key].copy_(value)
    module.took_values()
    if "y" in entry:
        x, y = torch.tensor(entry["x"]), torch.tensor(entry["y"])
        plain = layer(x)
        module.attach()
        close(layer(x), y)
        module.multiplier = 0.5
        close(layer(x), torch.tensor(entry["half"]) if entry.get("half") else (plain + y) / 2)
        module.multiplier = 1.0
    module.merge()
    close(layer.weight, torch.tensor(entry["W_eff"]))


def close(found: Tensor, wanted: Tensor) -> None:
    """Within the digits that the entries have."""
    assert_close(found, wanted, rtol=1e-4, atol=1e-5)
