"""A linear layer with its LoRA in one function: what the layer and its addition give one after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from network_contract import point_at
from torch import Tensor, nn

from library.models.casting import cast_together, trained_weights_in
from library.models.float8 import store_in_float8
from library.network.low_rank import linear_with_lora
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size
from networks.lora import LoRAModule


def tensors(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, W, bias, A, B and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 9, 24), (32, 24), (32,), (4, 24), (32, 4), (2, 9, 32))
    x, weight, bias, down, up, grad = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return [one.to(dtype) for one in (x, weight / 5, bias, down / 5, up / 2, grad)]


def apart(x: Tensor, weight: Tensor, bias: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The addition on the layer's output."""
    out, hidden = F.linear(x, weight, bias), F.linear(x, down)
    flat = torch.addmm(out.view(-1, out.shape[-1]), hidden.view(-1, hidden.shape[-1]), up.T, alpha=scale)
    return flat.view(out.shape)


def results(function, given: list[Tensor], scale: float) -> list[Tensor]:
    """The output, and the gradients of x, A and B."""
    *inputs, grad = (tensor.detach().clone() for tensor in given)
    for number in (0, 3, 4):
        inputs[number].requires_grad_()
    out = function(*inputs, scale)
    out.backward(grad)
    return [out.detach(), *(inputs[number].grad for number in (0, 3, 4))]


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_in_float32_with_a_scale_that_is_a_power_of_two_it_is_bit_for_bit_the_same(scale: float) -> None:
    given = tensors(dtype=torch.float32)
    for one, other in zip(results(linear_with_lora, given, scale), results(apart, given, scale), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_in_bfloat16_it_is_no_further_from_float64(scale: float) -> None:
    ours, theirs = torch.zeros(4), torch.zeros(4)
    for seed in range(20):
        given = tensors(seed, torch.bfloat16)
        exact = results(apart, [one.double() for one in given], scale)
        for sums, function in ((ours, linear_with_lora), (theirs, apart)):
            found = results(function, given, scale)
            sums += torch.tensor(
                [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]
            )
    assert (ours <= theirs * 1.001).all(), (ours, theirs)
    assert ours[1] < 0.97 * theirs[1]  # the gradient of x is rounded once less


def test_its_gradients_are_those_of_the_formula() -> None:
    inputs = tensors()[:5]
    for number in (0, 3, 4):
        inputs[number].requires_grad_()
    with_bias = lambda x, a, b: linear_with_lora(x, *inputs[1:3], a, b, 0.3)  # noqa: E731
    assert torch.autograd.gradcheck(with_bias, inputs[:1] + inputs[3:])
    without = lambda x, a, b: linear_with_lora(x, inputs[1], None, a, b, 1.0)  # noqa: E731
    assert torch.autograd.gradcheck(without, inputs[:1] + inputs[3:])


def test_its_output_can_be_changed_in_place() -> None:
    *inputs, grad = tensors()
    inputs[3].requires_grad_()
    out = linear_with_lora(*inputs, 1.0)
    out += 1
    out.backward(grad)
    assert inputs[3].grad.any()


def test_casts_together_give_each_its_gradient_in_its_own_type() -> None:
    first, second = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([[3.0]]))
    frozen, half = torch.tensor([5.0]), nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    copies = cast_together([first, second, frozen, half], torch.bfloat16)
    assert [(copy.dtype, copy.tolist()) for copy in copies] == [
        (torch.bfloat16, [1.0, 2.0]),
        (torch.bfloat16, [[3.0]]),
        (torch.bfloat16, [5.0]),
        (torch.bfloat16, [1.0, 1.0]),
    ]
    assert copies[3] is half
    (copies[0].sum() * 2 + copies[3].sum()).backward()
    assert first.grad.dtype == torch.float32 and first.grad.tolist() == [2.0, 2.0]
    assert second.grad is None and half.grad.tolist() == [1.0, 1.0]


def test_a_part_that_a_step_does_not_use_stays_out_of_its_graph() -> None:
    used, unused = nn.Linear(2, 2), nn.Linear(2, 2)
    with trained_weights_in([[used], [unused]], torch.bfloat16):
        out = used(torch.ones(1, 2, dtype=torch.bfloat16))
        assert unused.weight.dtype == torch.bfloat16
        reached, todo = set(), [out.grad_fn]
        while todo:
            node = todo.pop()
            reached.add(id(getattr(node, "variable", None)))
            todo += [following for following, _ in node.next_functions if following is not None]
        out.sum().backward()
    assert id(used.weight) in reached and id(unused.weight) not in reached
    assert used.weight.dtype == used.weight.grad.dtype == torch.float32 and unused.weight.grad is None


class Foreign(NetworkModule):
    """A LoRA that somebody else wrote: its layers know nothing of types."""

    def __init__(self, point) -> None:
        super().__init__(point, size=Size(2, 2.0))
        self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 4, bias=False)

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        return out + self.up(self.down(x)) * self.multiplier


@pytest.mark.parametrize("kind", [Foreign, lambda point: LoRAModule(point, Size(2, 2.0))])
def test_float32_modules_stand_beside_layers_of_16_bits_without_autocast(kind) -> None:
    layer = nn.Linear(6, 4).requires_grad_(False).bfloat16()
    module, x = kind(point_at(layer)), torch.ones(3, 6, dtype=torch.bfloat16)
    network = Network({"x": module}, dim=None, alpha=None)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    own = layer(x)
    network.attach()
    alone = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = layer(x)
    network.cast_for_step(torch.bfloat16)
    found = layer(x)
    assert found.dtype == torch.bfloat16 and not torch.equal(found, own)
    assert torch.equal(found, alone) and torch.equal(found, autocast)
    found.sum().backward()
    assert all(one.grad.dtype == torch.float32 and one.grad.any() for one in module.parameters())


def test_copies_are_those_of_the_step_until_they_are_forgotten() -> None:
    layer = nn.Linear(6, 4).requires_grad_(False).bfloat16()
    module, x = LoRAModule(point_at(layer), Size(2, 2.0)), torch.ones(3, 6, dtype=torch.bfloat16)
    nn.init.ones_(module.lora_up.weight)
    nn.init.ones_(module.lora_down.weight)
    network = Network({"x": module}, dim=None, alpha=None)
    network.attach()
    network.cast_for_step(torch.bfloat16)
    before = layer(x)
    with torch.no_grad():
        module.lora_up.weight.zero_()
    assert torch.equal(layer(x), before)
    network.forget_casts()
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_a_layer_in_float8_is_computed_with_its_lora() -> None:
    layer = nn.Linear(6, 4).requires_grad_(False)
    store_in_float8(layer)
    module, x = LoRAModule(point_at(layer), Size(2, 2.0)), torch.ones(3, 6, requires_grad=True)
    nn.init.ones_(module.lora_up.weight)
    nn.init.ones_(module.lora_down.weight)
    module.attach()
    out = layer(x)
    assert type(out.grad_fn).__name__ == "_LinearWithLoRABackward"
    expected = F.linear(x, layer.weight.float() + module.delta_weight(), layer.bias)
    torch.testing.assert_close(out, expected)


def test_a_layer_that_is_trained_itself_gets_its_gradient() -> None:
    layer, x = nn.Linear(6, 4), torch.ones(3, 6)
    module = LoRAModule(point_at(layer), Size(2, 2.0))
    module.attach()
    layer(x).sum().backward()
    assert layer.weight.grad is not None and module.lora_up.weight.grad is not None


def test_a_convolution_of_one_pixel_in_channels_last_is_a_linear_layer() -> None:
    layer = nn.Conv2d(6, 4, 1).requires_grad_(False)
    module, x = LoRAModule(point_at(layer), Size(2, 1.0)), torch.randn(2, 6, 5, 3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    expected = module.add_to(layer(x), x)
    module.attach()
    assert type(layer(x).grad_fn).__name__ == "AddBackward0"  # in another order it stays a convolution
    found = layer(x.to(memory_format=torch.channels_last))
    assert "LinearWithLoRA" in type(found.grad_fn.next_functions[0][0]).__name__
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)
