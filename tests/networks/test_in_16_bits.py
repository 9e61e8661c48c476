"""Kinds that compute with the layer's weight, in steps of 16 bits."""

from collections.abc import Callable

import pytest
import torch
from network_contract import point_at
from torch import nn
from torch.testing import assert_close

from library.models.base import AttachPoint
from library.models.float8 import store_in_float8
from library.network.module import NetworkModule
from library.network.sizes import Size
from networks import boft, diag_oft, glora, ia3, oft, oft_v2

MAKERS: dict[str, Callable[[AttachPoint], NetworkModule]] = {
    "oft": lambda point: oft.OFTModule(point, 4, 1e-3),
    "diag_oft": lambda point: diag_oft.DiagOFTModule(point, (4, 4, 4), 0.0, rescaled=True),
    "lycoris_boft": lambda point: diag_oft.ButterflyModule(point, (3, 4, 4, 4), 0.0, rescaled=False),
    "oft_v2": lambda point: oft_v2.OFTv2Module(point, (point.module.weight[0].numel() // 4, 4)),
    "boft": lambda point: boft.BOFTModule(point, 1, 4),
    "ia3": lambda point: ia3.IA3Module(point, (16,)),
    "glora": lambda point: glora.GLoRAModule(point, Size(4, 4.0)),
}
LAYERS: dict[str, Callable[[], nn.Linear | nn.Conv2d]] = {
    "linear": lambda: nn.Linear(12, 16),
    "conv3": lambda: nn.Conv2d(12, 16, 3, padding=1),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("sort", LAYERS)
@pytest.mark.parametrize("storage", ["bf16", "float8", "autocast"])
def test_what_is_added_is_that_of_float32(sort: str, name: str, storage: str) -> None:
    layer = LAYERS[sort]().requires_grad_(False)
    module = MAKERS[name](point_at(layer)).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    shape = (2, 12, 6, 6) if sort == "conv3" else (2, 5, 12)
    x = torch.randn(shape, generator=generator)
    with torch.no_grad():
        if storage == "float8":  # which loses more, but for all alike
            layer.weight.copy_(layer.weight.to(torch.float8_e4m3fn).float())
        module.attach()
        exact = layer(x)
        module.detach()
    if storage == "bf16":
        layer.to(torch.bfloat16)
        module.to(torch.bfloat16)
    if storage == "float8":
        layer.to(torch.bfloat16)
        store_in_float8(layer)
    module.attach()
    with torch.autocast("cpu", torch.bfloat16, enabled=storage == "autocast"):
        found = layer(x if storage == "autocast" else x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), exact, rtol=0.05, atol=0.05)
    found.float().square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any()
