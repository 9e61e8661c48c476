"""Modules at layers that share their input, computed in one function: the same as each by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from network_contract import point_at
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from library.models.float8 import store_in_float8
from library.models.plain_attention import PlainAttention
from library.network.low_rank import linears_with_lora
from library.network.network import Network
from library.network.sizes import Size
from networks.lora import LoRAModule

PROJECTIONS = ("to_q", "to_k", "to_v")
RANKS = (4, 1, 3)
SCALES = (1.0, 0.3, 0.5)


def given(dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """x, the A's one below the other, three W's, three B's, and three gradients of outputs."""
    generator = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    weights, ups = ([values(out, size) / 5 for size in sizes] for out, sizes in ((32, [24] * 3), (32, RANKS)))
    return [values(2, 9, 24), values(sum(RANKS), 24) / 5, *weights, *ups, *(values(2, 9, 32) for _ in RANKS)]


def at_once(x: Tensor, down: Tensor, *layers: Tensor) -> tuple[Tensor, ...]:
    return linears_with_lora(x, layers[:3], [None] * 3, down, layers[3:], SCALES)


def one_by_one(x: Tensor, down: Tensor, *layers: Tensor) -> tuple[Tensor, ...]:
    outs = []
    for weight, a, up, scale in zip(layers[:3], down.split(RANKS), layers[3:], SCALES, strict=True):
        outs += linears_with_lora(x, [weight], [None], a, [up], [scale])
    return tuple(outs)


def results(function: Callable[..., tuple[Tensor, ...]], tensors: list[Tensor]) -> list[Tensor]:
    """The outputs, and the gradients of x, the A's and the B's."""
    leaves = [tensor.detach().clone() for tensor in tensors[:8]]
    trained = [
        leaves[0].requires_grad_(),
        leaves[1].requires_grad_(),
        *(b.requires_grad_() for b in leaves[5:]),
    ]
    outs = function(*leaves)
    torch.autograd.backward(outs, tensors[8:])
    return [*(out.detach() for out in outs), *(leaf.grad for leaf in trained)]


def errors(found: list[Tensor], exact: list[Tensor]) -> Tensor:
    pairs = zip(found, exact, strict=True)
    return torch.tensor([float((one.double() - other).norm() / other.norm()) for one, other in pairs])


def test_layers_computed_at_once_are_the_same_as_one_by_one_within_rounding() -> None:
    tensors = given(torch.float32)
    exact = results(one_by_one, [tensor.double() for tensor in tensors])
    assert (errors(results(at_once, tensors), exact) < 1e-6).all()
    found, expected = torch.zeros(8), torch.zeros(8)
    for seed in range(20):
        tensors = given(torch.bfloat16, seed)
        exact = results(one_by_one, [tensor.double() for tensor in tensors])
        found += errors(results(at_once, tensors), exact)
        expected += errors(results(one_by_one, tensors), exact)
    assert (found <= expected * 1.001).all(), (found, expected)
    assert found[3] < 0.9 * expected[3]  # the gradient of x is rounded four times less


def test_gradients_are_those_of_the_formula_whatever_needs_them() -> None:
    x, down, *layers = given(torch.float64)[:8]
    weights, bias = [layer[:4, :6] for layer in layers[:2]], torch.randn(4, dtype=torch.float64)

    def function(x: Tensor, down: Tensor, *ups: Tensor) -> tuple[Tensor, ...]:
        return linears_with_lora(x, weights, [bias, None], down, ups, SCALES[:2])

    inputs = [x[:1, :3, :6], down[:5, :6], *(up[:4] for up in layers[3:5])]
    for frozen in (None, 0, 1, 2):
        for number, tensor in enumerate(inputs):
            tensor.requires_grad_(number != frozen)
        assert torch.autograd.gradcheck(function, inputs)


class Block:
    """A transformer block with LoRAs, and what a step gives.

    ranks: of its LoRAs, by the names of layers in it.
    """

    def __init__(self, ranks: dict[str, int], kind: type[LoRAModule] = LoRAModule) -> None:
        torch.manual_seed(0)
        self.block = BasicTransformerBlock(16, 2, 8, cross_attention_dim=12).requires_grad_(False)
        self.shared = []
        for attention in (self.block.attn1, self.block.attn2):
            attention.set_processor(PlainAttention(attention))
            self.shared.append(attention.processor.shared)
        self.network = self.add(ranks, kind)
        self.checkpoints = False

    def add(self, ranks: dict[str, int], kind: type[LoRAModule] = LoRAModule) -> Network:
        modules = {
            name.replace(".", "_"): kind(point_at(self.block.get_submodule(name)), Size(rank, 1.5))
            for name, rank in ranks.items()
        }
        network = Network(modules, dim=None, alpha=None)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
        network.attach()
        return network

    def step(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """The output and all gradients."""
        x, text = torch.randn(2, 9, 16, requires_grad=True), torch.randn(2, 5, 12, requires_grad=True)
        self.network.cast_for_step(dtype)
        torch.manual_seed(2)
        inputs = (x.to(dtype), None, text.to(dtype))
        run = self.block
        out = checkpoint(run, *inputs, use_reentrant=False) if self.checkpoints else run(*inputs)
        out.square().sum().backward()
        self.network.forget_casts()
        assert all(one.together is None for one in self.shared)
        return [out.detach(), x.grad, text.grad, *(p.grad for p in self.network.parameters())]


ALL = {f"{attention}.{name}": 2 + n for attention in ("attn1", "attn2") for n, name in enumerate(PROJECTIONS)}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many modules were computed at once, for each time."""
    found: list[int] = []
    function = LoRAModule.forward_together

    def counted(modules: list[LoRAModule], *tensors: Tensor) -> tuple[Tensor, ...]:
        found.append(len(modules))
        return function(modules, *tensors)

    monkeypatch.setattr(LoRAModule, "forward_together", staticmethod(counted))
    return found


def checkpointed(case: Block) -> None:
    case.checkpoints = True


def in_float8(case: Block) -> None:
    store_in_float8(case.block.attn1.to_k)


def hooked(case: Block) -> None:
    case.block.attn1.to_k.register_forward_hook(lambda _, x, out: out * 2)


def hooked_before(case: Block) -> None:
    case.block.attn2.to_v.register_forward_pre_hook(lambda _, x: (x[0] * 2,))


def taken(case: Block) -> None:
    own = case.block.attn1.to_q.forward
    case.block.attn1.to_q.forward = lambda x: own(x) * 2


def replaced(case: Block) -> None:
    case.block.attn1.to_q = nn.Linear(16, 16)


def beside_another(case: Block) -> None:
    case.add({"attn1.to_v": 2})


def dropping(case: Block) -> None:
    for module in case.network.by_name.values():
        module.dropout = 0.5


def in_a_region(case: Block) -> None:
    for module in case.network.by_name.values():
        module.region = lambda out: torch.linspace(0, 1, out.shape[1])[:, None]


def half_strong(case: Block) -> None:
    case.network.set_multiplier(0.5)


def untrained(case: Block) -> None:
    case.network.by_name["attn1_to_k"].requires_grad_(False)


def detached(case: Block) -> None:
    case.network.by_name["attn2_to_k"].detach()


@pytest.mark.parametrize(
    ("ranks", "change", "expected"),
    [
        (ALL, None, [3, 2]),
        ({name: 2 for name in ALL if name != "attn1.to_k"}, None, [2, 2]),
        ({"attn1.to_q": 2, "attn2.to_q": 3, "attn2.to_k": 4}, None, []),
        (ALL, checkpointed, [3, 2, 3, 2]),
        (ALL, in_float8, [3, 2]),
        (ALL, half_strong, [3, 2]),
        (ALL, hooked, [2]),
        (ALL, hooked_before, [3]),
        (ALL, taken, [2]),
        (ALL, beside_another, [2]),
        (ALL, detached, [3]),
        (ALL, dropping, []),
        (ALL, in_a_region, []),
    ],
)
def test_a_step_gives_the_same(
    calls: list[int], ranks: dict[str, int], change: Callable[[Block], None] | None, expected: list[int]
) -> None:
    found = []
    for joins in (False, True):
        case = Block(ranks)
        if change is not None:
            change(case)
        if joins:
            case.network.join(case.shared)
        found.append(case.step())
    assert calls == expected
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).norm() <= 1e-5 * other.norm() and other.norm() > 0


def test_a_module_that_is_not_trained_gets_no_gradient_from_its_group(calls: list[int]) -> None:
    case = Block(ALL)
    untrained(case)
    case.network.join(case.shared)
    case.step()
    assert calls == [3, 2]
    without = {name for name, p in case.network.named_parameters() if p.grad is None}
    assert without == {f"registered.attn1_to_k.lora_{half}.weight" for half in ("down", "up")}


def test_a_layer_put_in_anothers_place_is_what_computes() -> None:
    case = Block(ALL)
    case.network.join(case.shared)
    replaced(case)
    x = torch.ones(1, 3, 16)
    case.network.cast_for_step(torch.float32)
    assert torch.equal(case.shared[0].outputs(x)[0], case.block.attn1.to_q(x))


def test_kinds_that_compute_otherwise_do_not_join(calls: list[int]) -> None:
    class Other(LoRAModule):
        def forward_with_layer(self, x: Tensor) -> Tensor:
            return F.linear(x, self.layer.weight, self.layer.bias)

    case = Block(ALL, Other)
    case.network.join(case.shared)
    case.step()
    assert calls == [] and all(p.grad is None for p in case.network.parameters())


def test_in_16_bits_gradients_come_in_the_types_of_the_weights(calls: list[int]) -> None:
    case = Block(ALL)
    case.block.bfloat16()
    case.network.join(case.shared)
    found = case.step(torch.bfloat16)
    assert calls == [3, 2] and found[0].dtype == torch.bfloat16
    gradients = [parameter.grad for parameter in case.network.parameters()]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    # Not views of one another: clipping and hooks change gradients in place.
    assert len({gradient.untyped_storage().data_ptr() for gradient in gradients}) == len(gradients)
