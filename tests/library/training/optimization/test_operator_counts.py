"""How many operators an optimizer's step takes, how many bytes it moves, and that it reads no device.

The counts do not depend on the machine: an operator is one that torch dispatches, no view or allocation.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from library.options.optimizer import OptimizerOptions
from library.training.optimization import rounding
from library.training.optimization.ema import Average
from library.training.optimization.gradients import gradient_norm, is_not_finite
from library.training.optimization.guard import GuardedSteps
from library.training.optimization.optimizers import make_optimizer
from library.training.optimization.rounding import RoundedOptimizer
from library.training.optimization.self_tuning import begin_training
from library.training.optimization.update_in_backward import StepsInBackward

READ = "_local_scalar_dense"
_FREE = {"detach", "empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view", "alias"}
_OVERWRITE = ("copy_", "_foreach_copy_", "zero_", "fill_")


class Operators(TorchDispatchMode):
    """Context manager; inside it operators are counted by name, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, schema = func(*args, **(kwargs or {})), func._schema
        name = schema.name.removeprefix("aten::")
        if func.is_view or name in _FREE or not schema.name.startswith("aten::"):
            return result
        self.names[name] += 1
        given = {one.name: value for one, value in zip(schema.arguments, args, strict=False)}
        for argument in schema.arguments:
            size = _bytes((given | (kwargs or {})).get(argument.name))
            writes = argument.alias_info is not None and argument.alias_info.is_write
            self.bytes += size * (writes + (not writes or not name.startswith(_OVERWRITE)))
        if not any(one.alias_info for one in schema.returns):
            self.bytes += _bytes(result)
        return result

    @property
    def count(self) -> int:
        return self.names.total()


def _bytes(value: object) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def transformer_blocks(count: int, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Parameters of SDXL's transformer blocks and convolutions, 16 times thinner."""
    one = [(80, 80), (80, 80), (80, 80), (80, 80), (80,), (640, 80), (640,), (80, 320), (80,)]
    one += [(80, 80), (80, 128), (80, 128), (80, 80), (80,), *[(80,)] * 6]
    shapes = [(80, 160, 3, 3), (80,), (80, 80, 3, 3), (80,), *one * 3] * count
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator).div(20).to(dtype)) for shape in shapes]


def make(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    options = OptimizerOptions(optimizer_type=name)
    groups = [{"params": parameters, "lr": 1e-4, "name": "unet"}]
    if parameters[0].dtype == torch.float32:
        return make_optimizer(groups, options)
    return RoundedOptimizer(groups, partial(make_optimizer, options=options), seed=1, max_grad_norm=1.0)


def step_after(name: str, dtype: torch.dtype = torch.float32) -> tuple[Operators, list[nn.Parameter]]:
    """The operators of a second step, the guard's part of it included."""
    parameters = transformer_blocks(2, dtype)
    optimizer = make(name, parameters)
    begin_training(optimizer)
    steps = GuardedSteps(optimizer)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        norm = gradient_norm(parameters)
        with Operators() as operators:
            steps.step(is_not_finite(norm))
    return operators, parameters


def step_within(name: str, dtype: torch.dtype = torch.float32) -> tuple[Operators, list[nn.Parameter]]:
    """The operators of a second step within the backward pass, without those of the pass."""
    parameters = transformer_blocks(2, dtype)
    steps = StepsInBackward(make(name, parameters), None)
    for _ in range(2):
        with Operators() as operators:
            for parameter in reversed(parameters):
                parameter.grad = torch.ones_like(parameter)
                for hook in parameter._post_accumulate_grad_hooks.values():
                    hook(parameter)
            steps.finish()
        operators.names["ones_like"] = 0
    return operators, parameters


# Operators per parameter. Lion's package and torch's SGD on the CPU have seven and four themselves.
WITHIN = {"AdaFactor": 7, "AdamW": 1, "Lion": 9, "AdamW8bit": 1, "SGDNesterov": 5}


@pytest.mark.parametrize("name", WITHIN)
def test_a_step_within_the_backward_pass_takes_few_operators_and_reads_nothing(name: str) -> None:
    operators, parameters = step_within(name)
    assert operators.count <= WITHIN[name] * len(parameters)
    assert operators.names[READ] == 0


@pytest.mark.parametrize("name", ["AdamW", "AdaFactor", "AdamW8bit"])
def test_so_does_one_of_16_bit_weights(name: str) -> None:
    operators, parameters = step_within(name, torch.bfloat16)
    assert operators.count <= 3 * len(parameters)
    assert operators.names[READ] == 0


@pytest.mark.parametrize(
    "name", ["AdamW", "AdaFactor", "AdamW8bit", "Lion", "Lion8bit", "SGDNesterov", "AdamWScheduleFree"]
)
def test_no_step_reads_the_device(name: str) -> None:
    assert step_after(name)[0].names[READ] == 0


@pytest.mark.parametrize(("name", "most"), [("AdamW", 6), ("AdaFactor", 150)])
def test_all_tensors_are_stepped_at_once(name: str, most: int) -> None:
    """Whatever their number: AdaFactor needs some operators for each shape."""
    assert step_after(name)[0].count <= most


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam"])
def test_only_those_who_find_their_rate_read_the_device_and_we_once(name: str) -> None:
    """They do so themselves; the guard's read stands beside theirs."""
    parameters = transformer_blocks(1)
    optimizer = make_optimizer([{"params": parameters, "lr": 1.0, "name": "unet"}], OptimizerOptions(name))
    taken = []
    optimizer.step = lambda: taken.append(True)
    with Operators() as operators:
        GuardedSteps(optimizer).step(torch.tensor(False))
    assert (taken, operators.names[READ]) == ([True], 1)


def test_16_bit_weights_move_70_bytes_each_in_a_few_operators_a_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operators, parameters = step_after("AdamW", torch.bfloat16)
    weights = sum(parameter.numel() for parameter in parameters)
    assert operators.bytes <= 70.5 * weights  # the norms and flags are not quite nothing in a small model
    assert operators.names[READ] == 0
    monkeypatch.setattr(rounding, "CHUNK", weights // 10)
    more, _ = step_after("AdamW", torch.bfloat16)
    chunks = len(make("AdamW", transformer_blocks(2, torch.bfloat16)).chunks)
    assert chunks > 10
    assert (more.count - operators.count) / (chunks - 1) <= 17


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_average_takes_in_all_weights_at_once(dtype: torch.dtype) -> None:
    parameters = transformer_blocks(2, dtype)
    average = Average(nn.ParameterList(parameters), parameters, 0.9, torch.device("cpu"))
    with Operators() as operators:
        average.update()
    assert operators.count <= 2
