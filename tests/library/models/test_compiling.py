"""Compiled blocks: the same results, names and gradients, with what networks hook onto layers."""

import shutil

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from network_contract import point_at
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from library.models.base import AttachPoint
from library.models.compiling import check_backend, compile_blocks
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size
from library.problems import UserError
from networks.lora import LoRAModule


class Twice(NetworkModule):
    """Adds a trained multiple of the layer's input."""

    def __init__(self, point: AttachPoint) -> None:
        super().__init__(point)
        self.weight = nn.Parameter(torch.tensor(0.5))

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        return out + x * self.weight * self.multiplier


def block() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(BasicTransformerBlock(16, 2, 8))


def results(module: nn.Module, network: Twice, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of the network's weight."""
    network.weight.grad = None
    out = module(x)
    out.square().mean().backward()
    return out.detach(), network.weight.grad.clone()


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled_blocks_give_the_same_with_what_is_hooked_onto_their_layers(backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    plain, compiled = block(), block()
    networks = [Twice(point_at(module[0].attn1.to_q)) for module in (plain, compiled)]
    for network in networks:
        network.attach()
    names = list(compiled.state_dict())
    seen = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compile_blocks(list(compiled), backend) == 1
    cases = ((1.0, 4), (0.0, 4), (1.0, 6))
    for multiplier, length in cases[: 1 if backend == "inductor" else 3]:  # it takes its time
        for network in networks:
            network.multiplier = multiplier
        x = torch.randn(2, length, 16, generator=torch.Generator().manual_seed(length))
        torch.testing.assert_close(results(compiled, networks[1], x), results(plain, networks[0], x))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > seen
    assert list(compiled.state_dict()) == names


def test_a_block_with_loras_is_one_graph_for_a_shape_and_for_all_steps() -> None:
    module = block().requires_grad_(False).bfloat16()
    attention = module[0].attn1
    layers = (attention.to_q, attention.to_k, attention.to_v)
    loras = {str(n): LoRAModule(point_at(layer), Size(2, 2.0)) for n, layer in enumerate(layers)}
    network = Network(loras, dim=2, alpha=2.0)
    network.attach()
    counter = CompileCounter()
    module[0].compile(backend=counter, fullgraph=True)  # a graph break would be an error
    for length, graphs in ((4, 1), (4, 1), (6, 2), (6, 2), (8, 2)):  # the second size makes it dynamic
        network.cast_for_step(torch.bfloat16)
        module(torch.ones(1, length, 16, dtype=torch.bfloat16)).sum().backward()
        assert counter.frame_count == graphs
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_transformer_and_residual_blocks_are_what_is_compiled(tiny_model) -> None:
    kinds = (BasicTransformerBlock, ResnetBlock2D)
    blocks = [m for m in tiny_model.denoiser.modules() if isinstance(m, kinds)]
    assert compile_blocks(tiny_model.blocks(), "eager") == len(blocks) > 10
    compiled = [m for m in tiny_model.denoiser.modules() if m._compiled_call_impl is not None]
    assert compiled == blocks


def test_a_backend_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match="--dynamo_backend tensort: is not installed; there are inductor"):
        check_backend("tensort", torch.device("cpu"))
