"""What modules can be: toy kinds of every sort that a network may have, on single layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from network_contract import point_at
from torch import Tensor, nn
from torch.testing import assert_close

from library.models.base import AttachPoint, Condition, Model
from library.models.float8 import store_in_float8
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size
from library.problems import UserError
from networks.lora import LoRAModule


def linear(wide_in: int = 6, wide_out: int = 4, seed: int = 0) -> nn.Linear:
    """A frozen layer."""
    layer = nn.Linear(wide_in, wide_out).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    layer.weight.normal_(generator=generator)
    layer.bias.normal_(generator=generator)
    return layer


def given(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


def trained_lora(point: AttachPoint, seed: int = 0) -> LoRAModule:
    module = LoRAModule(point, Size(2, 1.0))
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module


class Magnitude(NetworkModule):
    """DoRA's: trained norms of the rows of W, here without a low-rank part."""

    def __init__(self, point: AttachPoint) -> None:
        super().__init__(point)
        self.magnitude = nn.Parameter(self.frozen_weight().norm(dim=1))

    def change(self, out: Tensor, x: Tensor) -> Tensor:
        factor = self.magnitude / self.frozen_weight().norm(dim=1)  # (out,)
        return out + self.multiplier * (factor - 1) * (out - self.layer.bias)

    def delta_weight(self) -> Tensor:
        weight = self.frozen_weight()
        return weight * (self.magnitude / weight.norm(dim=1))[:, None] - weight


class Rotation(NetworkModule):
    """OFT's: a rotation of the rows of W, given by its weight alone."""

    def __init__(self, point: AttachPoint) -> None:
        super().__init__(point)
        self.blocks = nn.Parameter(torch.zeros([self.weight_shape[0]] * 2))

    def delta_weight(self) -> Tensor:
        q, one, weight = self.blocks - self.blocks.T, torch.eye(len(self.blocks)), self.frozen_weight()
        rotation = (one + q) @ torch.linalg.inv(one - q)
        return (rotation.T @ weight.flatten(1)).view(weight.shape) - weight


class Context(NetworkModule):
    """A hypernetwork's: one small network changes what all layers of a width are given."""

    stands = "before"
    why_not_merged = "it changes what layers are given"

    def __init__(self, *points: AttachPoint) -> None:
        super().__init__(*points)
        self.net = nn.Linear(self.layer.in_features, self.layer.in_features)

    def change_input(self, x: Tensor) -> Tensor:
        return x + self.multiplier * self.net(x).relu()


class Together(LoRAModule):
    """A LoRA that computes its layer too."""

    stands = "instead"

    def forward_with_layer(self, x: Tensor) -> Tensor:
        weight = self.layer.weight.to(x.dtype) + self.multiplier * self.delta_weight()
        return F.linear(x, weight, self.layer.bias)


class Fused(LoRAModule):
    """A LoRA of a fused qkv, as some files have it, for a model whose three layers stand apart."""

    def __init__(self, *points: AttachPoint, size: Size) -> None:
        NetworkModule.__init__(self, *points, size=size)
        wide = sum(point.module.out_features for point in points)
        self.lora_down = nn.Linear(self.layer.in_features, size.rank, bias=False)
        self.lora_up = nn.Linear(size.rank, wide, bias=False)
        self.places = {id(point): place for place, point in enumerate(points)}

    def change_at(self, point: AttachPoint, out: Tensor, x: Tensor) -> Tensor:
        up = self.lora_up.weight.chunk(len(self.points))[self.places[id(point)]]
        return out + F.linear(self.lora_down(x), up) * self.scale * self.multiplier

    def delta_weight_at(self, point: AttachPoint) -> Tensor:
        up = self.lora_up.weight.chunk(len(self.points))[self.places[id(point)]]
        return up @ self.lora_down.weight * self.scale


@pytest.mark.parametrize("kind", [Magnitude, Rotation])
def test_a_change_that_needs_the_frozen_weight(kind: type[NetworkModule]) -> None:
    layer, x = linear(), given(3, 6)
    module, own = kind(point_at(layer)), layer(x)
    module.attach()
    assert_close(layer(x), own, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        next(module.parameters()).add_(given(*next(module.parameters()).shape), alpha=0.3)
    full = layer(x)
    full.sum().backward()
    assert next(module.parameters()).grad.any() and layer.weight.grad is None
    module.multiplier = 0.5
    half = layer(x)
    assert_close(half, (own + full) / 2)
    assert (full - own).abs().max() > 0.1
    module.merge()
    assert_close(layer(x), half)


def test_a_rotation_keeps_the_lengths_of_columns() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
    before, module = layer.weight.flatten(1).norm(dim=0), Rotation(point_at(layer))
    module.blocks.data.normal_()
    module.merge()
    assert_close(layer.weight.flatten(1).norm(dim=0), before)


def test_one_module_changes_the_inputs_of_several_layers_and_is_not_merged() -> None:
    layers, x = [linear(seed=0), linear(seed=1)], given(3, 6)
    before = [layer(x) for layer in layers]
    weights = [layer.weight.clone() for layer in layers]
    module = Context(*(point_at(layer) for layer in layers))
    network = Network({"6": module, "lora": trained_lora(point_at(layers[0]))}, dim=None, alpha=None)
    lora = network.by_name["lora"]
    network.attach()
    changed = x + module.net(x).relu()
    assert_close(layers[1](x), F.linear(changed, weights[1], layers[1].bias))
    # What changes outputs sees the changed input, whichever was attached first.
    assert_close(layers[0](x), lora.add_to(F.linear(changed, weights[0], layers[0].bias), changed))
    with pytest.raises(UserError) as error:
        network.merge()
    assert str(error.value) == (
        "the network: cannot be merged into the model: it changes what layers are given"
    )
    network.detach()
    assert all(torch.equal(layer(x), one) for layer, one in zip(layers, before, strict=True))
    assert list(network.tensors()) == [
        "6.net.weight",
        "6.net.bias",
        *(f"lora.{key}" for key in lora.state_dict()),
    ]


def test_modules_of_a_part_of_a_fused_layer() -> None:
    fused, x = linear(6, 9), given(2, 5, 6)
    apart = [nn.Linear(6, 3).requires_grad_(False) for _ in range(3)]
    for number, layer in enumerate(apart):
        layer.weight.copy_(fused.weight[3 * number : 3 * number + 3])
        layer.bias.copy_(fused.bias[3 * number : 3 * number + 3])
    points = [point_at(fused, rows=range(3 * number, 3 * number + 3)) for number in range(3)]
    for number in (0, 2):  # k has none
        inside, beside = trained_lora(points[number], number), trained_lora(point_at(apart[number]), number)
        assert inside.weight_shape == (3, 6)
        inside.attach()
        beside.attach()
    expected = torch.cat([layer(x) for layer in apart], -1)
    assert_close(fused(x), expected)
    trained_lora(points[1], 1).merge()
    trained_lora(point_at(apart[1]), 1).merge()
    assert_close(fused(x), torch.cat([layer(x) for layer in apart], -1))


def test_a_module_of_rows_of_a_convolution() -> None:
    layer, x = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False), given(2, 3, 5, 5)
    before, module = layer(x), trained_lora(point_at(layer, rows=range(1, 3)))
    module.attach()
    changed = layer(x)
    assert torch.equal(changed[:, [0, 3]], before[:, [0, 3]]) and not torch.equal(changed, before)
    module.merge()
    assert_close(layer(x), changed)


def test_one_module_serves_several_layers() -> None:
    layers, x = [linear(6, 3, seed) for seed in range(3)], given(2, 6)
    module = Fused(*(point_at(layer) for layer in layers), size=Size(2, 2.0))
    before = torch.cat([layer(x) for layer in layers], -1)
    module.attach()
    changed = torch.cat([layer(x) for layer in layers], -1)
    assert_close(changed, before + module.lora_up(module.lora_down(x)))
    module.merge()
    assert_close(torch.cat([layer(x) for layer in layers], -1), changed)


@pytest.mark.parametrize("is_float8", ["no", "before", "after"])
def test_a_module_that_computes_its_layer_too(is_float8: str) -> None:
    layer, x = linear(), given(3, 6)
    if is_float8 != "no":
        layer.weight.copy_(layer.weight.to(torch.float8_e4m3fn).float())
    trace, own, reference = sorted(vars(layer)), layer(x), trained_lora(point_at(layer))
    if is_float8 == "before":
        store_in_float8(layer)
    module = Together(point_at(layer), Size(2, 1.0))
    module.load_state_dict(reference.state_dict())
    module.attach()
    if is_float8 == "after":
        store_in_float8(layer)
    assert_close(layer(x), reference.add_to(own, x))
    second = Together(point_at(layer), Size(2, 1.0))
    second.load_state_dict(trained_lora(point_at(layer), seed=1).state_dict())
    second.attach()  # the place is taken: it adds to what the first one gives
    assert_close(layer(x), second.add_to(reference.add_to(own, x), x))
    module.detach()
    assert_close(layer(x), second.add_to(own, x))
    second.detach()
    assert_close(layer(x), own)
    assert sorted(vars(layer)) == trace


@pytest.mark.parametrize("kind", [LoRAModule, Together])
def test_a_module_counts_in_its_region(kind: type[LoRAModule]) -> None:
    layer, x = linear(), given(2, 5, 6)
    module, own = kind(point_at(layer), Size(2, 1.0)), layer(x)
    module.load_state_dict(trained_lora(point_at(layer)).state_dict())
    module.attach()
    full = layer(x)
    module.region = lambda out: torch.tensor([1, 1, 0.5, 0, 0]).view(5, 1).to(out)
    found = layer(x)
    assert_close(found[:, :2], full[:, :2])
    assert_close(found[:, 2], (full[:, 2] + own[:, 2]) / 2)
    assert_close(found[:, 3:], own[:, 3:])


class Growing(Network):
    """Its strength grows with the timestep, and it counts for prompts of one chunk only."""

    def before_forward(self, t: Tensor, condition: Condition) -> None:
        self.set_multiplier(float(t.float().mean()) / 1000 if condition.hidden.shape[1] == 77 else 0.0)


def test_a_network_that_looks_at_the_condition_before_every_prediction(tiny_model: Model) -> None:
    tiny_model.eval()

    @torch.no_grad()
    def predict(time: int, tokens: int = 75) -> Tensor:
        condition, t = tiny_model.encode_text(tiny_model.tokenizer(tokens)(["one"])), torch.tensor([time])
        for look in tiny_model.before_predict:
            look(t, condition)
        return tiny_model.predict(given(1, 4, 8, 8), t, condition)

    point = next(point for point in tiny_model.attach_points() if point.part == "unet")
    network = Growing({"x": trained_lora(point)}, dim=None, alpha=None, model=tiny_model)
    before = {time: predict(time) for time in (0, 500)}
    longer = predict(500, 150)
    network.attach()
    network.attach()
    assert len(tiny_model.before_predict) == 1
    assert_close(predict(0), before[0])
    assert not torch.equal(predict(500), before[500])
    assert network.by_name["x"].multiplier == 0.5
    assert_close(predict(500, 150), longer)
    assert network.by_name["x"].multiplier == 0.0
    network.detach()
    assert tiny_model.before_predict == [] and torch.equal(predict(500), before[500])
    with pytest.raises(AssertionError):
        Growing({}, dim=None, alpha=None)


def test_a_model_does_not_hold_what_is_attached(tiny_model: Model) -> None:
    names, weights = list(tiny_model.state_dict()), len(list(tiny_model.parameters()))
    point = tiny_model.attach_points()[0]
    network = Network({"x": trained_lora(point)}, dim=None, alpha=None, model=tiny_model)
    network.attach()
    assert list(tiny_model.state_dict()) == names and len(list(tiny_model.parameters())) == weights
    assert sum(parameter.numel() for parameter in network.parameters()) < point.module.weight.numel()


def test_norms_of_a_kind_that_has_none_are_refused() -> None:
    network = Network({"x": Rotation(point_at(linear()))}, dim=None, alpha=None)
    with pytest.raises(UserError, match="--scale_weight_norms: networks of this kind have no norms"):
        network.limit_norms(1.0)
