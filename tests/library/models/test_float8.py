import pytest
import torch
from torch import nn

from library.models.float8 import store_in_float8


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 5), (2, 3, 6)),
        (nn.Linear(6, 5, bias=False), (4, 6)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8)),
        (nn.Conv2d(4, 6, 1), (1, 4, 3, 3)),
    ],
    ids=str,
)
def test_a_layer_in_float8_computes_as_one_with_its_rounded_weight(layer: nn.Module, shape: tuple) -> None:
    generator = torch.Generator().manual_seed(0)
    layer.requires_grad_(False)
    layer.weight.normal_(generator=generator)
    rounded = layer.weight.to(torch.float8_e4m3fn).float()
    x = torch.randn(shape, generator=generator)
    results = []
    for store in (False, True):
        if store:
            store_in_float8(layer)
        else:
            layer.weight.copy_(rounded)
        own = x.clone().requires_grad_(True)
        out = layer(own)
        out.square().sum().backward()
        results.append((out.detach(), own.grad))
    assert layer.weight.dtype == torch.float8_e4m3fn
    torch.testing.assert_close(results[1], results[0])


def test_weights_beyond_the_range_of_float8_stay_finite() -> None:
    layer = nn.Linear(1, 1, bias=False).requires_grad_(False)
    layer.weight.fill_(1e4)
    store_in_float8(layer)
    assert layer(torch.ones(1, 1)) == 448


def test_nothing_but_the_float8_weight_is_kept_for_the_backward_pass() -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    store_in_float8(layer)
    kept = []
    x = torch.ones(2, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.dtype) or t, lambda t: t):
        layer(x)
    assert kept == [torch.float8_e4m3fn]
