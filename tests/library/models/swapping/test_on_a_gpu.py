"""Blocks that come and go on a GPU: its streams and events, which no test on the CPU reaches."""

from __future__ import annotations

import pytest
import torch
from swapped import Chain
from torch import Tensor

from library.models.swapping.blocks import SwappedBlocks
from library.models.swapping.plan import plan_swap
from library.models.swapping.stores import make_store
from library.options.optimizer import OptimizerOptions
from library.training.optimization.optimizers import make_optimizer
from library.training.optimization.update_in_backward import StepsInBackward

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
WIDTH, STEPS = 256, 20  # wide enough for copies and kernels to overlap


def trained(ring: int) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The weights of a chain after some steps, on the CPU, and the gradients of what it was given; ring 0:
    all blocks stay.
    """
    device = torch.device("cuda")
    chain, swapped = Chain(12, WIDTH), None
    if ring:
        swapped = SwappedBlocks(make_store(device), plan_swap(list(chain.blocks), 12, ring))
        swapped.attach()
    chain.to(device)
    optimizer = make_optimizer(
        [{"params": list(chain.parameters()), "lr": 1e-3, "name": "x"}], OptimizerOptions()
    )
    steps, gradients = StepsInBackward(optimizer, None, swapped=swapped), []
    for step in range(STEPS):
        x = torch.randn(2, WIDTH, 8, 8, generator=torch.Generator().manual_seed(step)).to(device)
        chain(x.requires_grad_()).square().mean().backward()
        steps.finish()
        gradients.append(x.grad.cpu())
    if swapped is None:
        return {name: tensor.cpu() for name, tensor in chain.state_dict().items()}, gradients
    with swapped.masters():
        return chain.state_dict(), gradients


@pytest.mark.parametrize("ring", [1, 2, 3])
def test_training_is_the_same_bit_for_bit(ring: int) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        (weights, gradients), (expected, wanted) = trained(ring), trained(0)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, gradients, wanted))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
