"""Compiled blocks: the same results, names and gradients, with what networks hook onto layers."""

import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from functorch.compile import make_boxed_func
from long_cases import long
from network_contract import point_at
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounter
from torch._inductor.exc import InductorError
from torch.fx import GraphModule
from torch.utils.checkpoint import checkpoint

from library.models.base import AttachPoint
from library.models.compiling import (
    GraphSteps,
    _Fallback,
    call_before,
    captures_graphs,
    compile_blocks,
)
from library.models.plain_attention import PlainAttention
from library.network.module import NetworkModule
from library.network.network import Network
from library.network.sizes import Size
from library.options.model import CompileMode
from library.problems import hears_warnings
from networks.lora import LoRAModule

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def knows_no_shapes() -> None:
    """What torch learned of shapes in a test belongs to the code of all blocks."""
    torch._dynamo.reset()


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


@pytest.mark.parametrize("backend", ["eager", "aot_eager", long("inductor")])
def test_compiled_blocks_give_the_same_with_what_is_hooked_onto_their_layers(backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    plain, compiled = block(), block()
    networks = [Twice(point_at(module[0].attn1.to_q)) for module in (plain, compiled)]
    for network in networks:
        network.attach()
    names = list(compiled.state_dict())
    seen = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compile_blocks(list(compiled), backend, device=CPU) == 1
    cases = ((1.0, 4), (0.0, 4), (1.0, 6))
    for multiplier, length in cases[: 1 if backend == "inductor" else 3]:  # it takes its time
        for network in networks:
            network.multiplier = multiplier
        x = torch.randn(2, length, 16, generator=torch.Generator().manual_seed(length))
        torch.testing.assert_close(results(compiled, networks[1], x), results(plain, networks[0], x))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > seen
    assert list(compiled.state_dict()) == names


@pytest.mark.parametrize("joins", [False, True])
def test_a_block_with_loras_is_one_graph_for_a_shape_and_for_all_steps(joins: bool) -> None:
    module = block().requires_grad_(False).bfloat16()
    attention = module[0].attn1
    attention.set_processor(PlainAttention(attention))
    layers = (attention.to_q, attention.to_k, attention.to_v)
    loras = {str(n): LoRAModule(point_at(layer), Size(2, 2.0)) for n, layer in enumerate(layers)}
    network = Network(loras, dim=2, alpha=2.0)
    network.attach()
    if joins:
        network.join([attention.processor.shared])
    torch._dynamo.reset()  # it remembers sizes of other blocks
    counter = CompileCounter()
    module[0].compile(backend=counter, fullgraph=True)  # a graph break would be an error
    for length, graphs in ((4, 1), (4, 1), (6, 2), (6, 2), (8, 2)):  # the second size makes it dynamic
        network.cast_for_step(torch.bfloat16)
        assert (attention.processor.shared.together is not None) == joins
        module(torch.ones(1, length, 16, dtype=torch.bfloat16)).sum().backward()
        network.forget_casts()
        assert counter.frame_count == graphs
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_transformer_and_residual_blocks_are_what_is_compiled(tiny_model) -> None:
    kinds = (BasicTransformerBlock, ResnetBlock2D)
    blocks = [m for m in tiny_model.denoiser.modules() if isinstance(m, kinds)]
    assert compile_blocks(tiny_model.blocks(), "eager", device=CPU) == len(blocks) > 10
    compiled = [m for m in tiny_model.denoiser.modules() if m._compiled_call_impl is not None]
    assert compiled == blocks


def fails_at_once(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    raise NotImplementedError("no such operator\nand much more")


def fails_in_inductor(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    raise InductorError(NotImplementedError("no such operator"), None)


def fails_in_backward(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    def compile_forward(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        return make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=compile_forward, bw_compiler=fails_at_once)(graph, inputs)


def fails_when_run(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("no such operator")  # as compilers of kernels do at their first use

    return run


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name under which torch knows a backend."""
    name = request.param.__name__
    torch._dynamo.register_backend(request.param, name=name)
    yield name
    del torch._dynamo.backends.registry._COMPILER_FNS[name]
    del torch._dynamo.backends.registry._BACKENDS[name]


@pytest.mark.parametrize(
    "backend", [fails_at_once, fails_in_inductor, fails_in_backward, fails_when_run], indirect=True
)
def test_what_cannot_be_compiled_runs_as_it_is_with_one_line(backend: str) -> None:
    plain, compiled = block(), block()
    networks = [Twice(point_at(module[0].attn1.to_q)) for module in (plain, compiled)]
    for network in networks:
        network.attach()
    blocks = [compiled[0], ResnetBlock2D(in_channels=8, temb_channels=4, groups=2)]
    with hears_warnings() as lines:
        assert compile_blocks(blocks, backend, device=CPU) == 2
        assert lines == []
        x = torch.randn(2, 4, 16)
        for _ in range(2):
            expected = results(plain, networks[0], x)
            assert all(map(torch.equal, results(compiled, networks[1], x), expected))
        blocks[1](torch.ones(1, 8, 4, 4), torch.ones(1, 4)).sum().backward()
    assert lines == [
        "--torch_compile: BasicTransformerBlock and the like run uncompiled: NotImplementedError: no such "
        "operator; choose another --dynamo_backend, or leave out --torch_compile"
    ]
    assert all(one._compiled_call_impl is None for one in blocks)


class Rows(nn.Linear):
    """torch compiles what is not its own."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def knows_small_sizes(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    if any(isinstance(one, Tensor) and one.shape[0] == 7 for one in inputs):
        raise NotImplementedError("7 rows")
    return graph.forward


@pytest.mark.parametrize("backend", [knows_small_sizes], indirect=True)
def test_a_kind_of_block_that_cannot_be_compiled_later_on_leaves_others_compiled(backend: str) -> None:
    blocks = [Rows(3, 3), Rows(3, 3), nn.LayerNorm(3)]
    with hears_warnings() as lines:
        compile_blocks(blocks, backend, device=CPU)
        for rows in (5, 7, 7):
            x = torch.ones(rows, 3)
            assert torch.equal(blocks[0](x), nn.functional.linear(x, blocks[0].weight, blocks[0].bias))
    assert [line.split(";")[0] for line in lines] == [
        "--torch_compile: Rows and the like run uncompiled: NotImplementedError: 7 rows"
    ]
    assert [one._compiled_call_impl is None for one in blocks] == [True, True, False]


@pytest.mark.parametrize("backend", [knows_small_sizes], indirect=True)
def test_what_is_called_before_a_block_is_not_compiled_with_it_and_always_called(
    backend: str,
) -> None:
    compiles: list[bool] = []
    module = Rows(3, 3)
    with hears_warnings() as lines:
        compile_blocks([module], backend, device=CPU)
        call_before(module, lambda: compiles.append(torch.compiler.is_compiling()))
        for rows in (5, 7, 7):  # the second cannot be compiled, the third runs as it is
            x = torch.ones(rows, 3)
            assert torch.equal(module(x), nn.functional.linear(x, module.weight, module.bias))
    assert compiles == [False] * 3 and len(lines) == 1


def test_an_error_of_the_block_itself_is_raised_as_without_compiling() -> None:
    module = Rows(3, 3)
    with hears_warnings() as lines:
        compile_blocks([module], "eager", device=CPU)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
                module(torch.ones(2, 4))
            module(torch.ones(2, 3))
    assert lines == [] and module._compiled_call_impl is not None


def test_ctrl_c_while_compiling_is_no_fault_of_the_compiler() -> None:
    module = nn.Linear(3, 3)
    compile_blocks([module], "eager", device=CPU)

    def interrupted(x: Tensor) -> Tensor:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("import failed") from None

    module._compiled_call_impl = interrupted
    with pytest.raises(RuntimeError, match="import failed"):
        _Fallback([module]).around(module)(torch.ones(2, 3))


@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled_blocks_are_run_again_by_checkpointing(backend: str) -> None:
    found = []
    for compiles in (False, True):
        module, x = block()[0], torch.full((1, 4, 16), 0.5, requires_grad=True)
        with hears_warnings() as lines:
            if compiles:
                compile_blocks([module], backend, device=CPU)
            checkpoint(module, x, use_reentrant=False).square().sum().backward()
        assert lines == [] and x.grad is not None
        assert (module._compiled_call_impl is not None) == compiles
        found.append(x.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("backend", "device", "reason"),
    [
        ("tensort", "cpu", "is not installed, so nothing is compiled; there are inductor, aot_eager"),
        ("inductor", "cpu", r"needs a C\+\+ compiler, so nothing is compiled"),
        ("inductor", "cuda", "needs triton, so nothing is compiled; pip install triton"),
    ],
)
def test_a_machine_that_cannot_compile_is_one_line(
    monkeypatch: pytest.MonkeyPatch, backend: str, device: str, reason: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    module = block()
    with hears_warnings() as lines:
        assert compile_blocks(list(module), backend, device=torch.device(device)) == 0
    assert len(lines) == 1 and re.match(f"--dynamo_backend {backend}: {reason}", lines[0])
    assert module[0]._compiled_call_impl is None


def test_a_torch_that_cannot_compile_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(*_: object, **__: object) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.15+")

    monkeypatch.setattr(torch, "compile", compile)
    module = block()
    with hears_warnings() as lines:
        assert compile_blocks(list(module), "eager", device=CPU) == 0
    assert lines == [
        "--torch_compile: nothing is compiled: RuntimeError: torch.compile is not supported on Python 3.15+; "
        "leave it out"
    ]
    module(torch.ones(1, 4, 16))


def test_modes_are_those_of_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda _, **named: asked.append(named) or plain(_))
    plain = lambda module: setattr(module, "_compiled_call_impl", module._call_impl)  # noqa: E731
    for backend in ("inductor", "eager"):
        compile_blocks([nn.Linear(1, 1)], backend, device=CPU, mode="reduce-overhead")
    assert asked == [
        {"backend": "inductor", "mode": "reduce-overhead"},
        {"backend": "eager", "mode": None},
    ]
    assert set(get_args(CompileMode)) <= torch._inductor.list_mode_options().keys()


def test_graphs_are_captured_on_gpus_where_they_are_asked_for() -> None:
    cuda = torch.device("cuda")
    graphs = {
        (backend, mode)
        for backend in ("inductor", "cudagraphs", "eager")
        for mode in get_args(CompileMode)
        if captures_graphs(backend, mode, cuda)
    }
    modes = set(get_args(CompileMode))
    expected = {("inductor", mode) for mode in modes - {"default"}} | {("cudagraphs", mode) for mode in modes}
    assert graphs == expected
    assert not captures_graphs("inductor", "reduce-overhead", CPU)


def test_all_batches_of_a_step_are_one_for_cuda_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(len(marks)))
    denoiser = nn.Linear(1, 1)
    steps, x = GraphSteps(denoiser), torch.ones(1, 1)
    for step in range(2):
        for _ in range(3):  # gradients add up
            denoiser(x)
            with torch.no_grad():
                denoiser(x)  # what the model gives without its network
        assert len(marks) == step + 1
        steps.end()
    with torch.no_grad():  # a preview
        for _ in range(4):
            denoiser(x)
    assert len(marks) == 6
    denoiser(x)
    assert len(marks) == 7
