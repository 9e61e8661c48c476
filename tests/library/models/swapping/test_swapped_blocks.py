"""Blocks that come and go compute what blocks that stay do, and are away when they are not needed."""

from __future__ import annotations

import pytest
import torch
from swapped import Chain, RefusesAway, resident, swap
from torch import Tensor, nn

from library.models.swapping.plan import ALIGNMENT, plan_swap


def given() -> Tensor:
    return torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()


def gradient(chain: Chain) -> Tensor:
    x = given()
    chain(x).square().sum().backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize(("ring", "first", "others"), [(1, 23, 22), (2, 22, 20), (3, 21, 18)])
def test_gradients_are_those_of_blocks_that_stay_and_the_ends_are_not_fetched_twice(
    ring: int, first: int, others: int
) -> None:
    chain = Chain(12).requires_grad_(False)
    expected = gradient(chain)
    swapped, store = swap(chain.blocks, ring=ring)
    with RefusesAway(swapped):
        assert torch.equal(gradient(chain), expected)
        assert store.loads == first
        for _ in range(2):
            store.loads = 0
            assert torch.equal(gradient(chain), expected)
            assert store.loads == others
    assert store.returns == 0
    assert len(resident(swapped, chain.blocks)) <= ring


def test_a_pass_without_gradients_fetches_each_block_once_and_in_time() -> None:
    """Once the order is known: before, a guess or two may be wrong."""
    chain = Chain(6).requires_grad_(False)
    with torch.no_grad():
        expected = chain(given())
        _, store = swap(chain.blocks)
        for _ in range(2):
            assert torch.equal(chain(given()), expected)
        store.loads = 0
        fetched: list[tuple[int, int]] = []
        for number, block in enumerate(chain.blocks):
            block.norm.register_forward_pre_hook(lambda *_, n=number: fetched.append((n, store.loads)))
        chain(given())
    # The first was fetched by the pass before; inside of each block, the next one is there already.
    assert fetched == [(n, n + 1) for n in range(6)]


def test_an_order_that_changes_costs_copies_and_nothing_else() -> None:
    chain = Chain(5).requires_grad_(False)
    expected = gradient(chain)
    swapped, _ = swap(chain.blocks)
    with RefusesAway(swapped):
        gradient(chain)
        with torch.no_grad():
            chain.blocks[3](given())
            chain.blocks[1](given())
        assert torch.equal(gradient(chain), expected)


def test_without_recomputing_gradients_are_wrong_and_nothing_tells() -> None:
    """Why blocks that come and go turn on gradient checkpointing."""
    chain = Chain(6, recomputes=False).requires_grad_(False)
    expected = gradient(chain)
    swap(chain.blocks)
    assert not torch.equal(gradient(chain), expected)


def test_what_is_away_spoils_what_computes_with_it_and_cannot_be_written_to() -> None:
    block = Chain(1).blocks[0].requires_grad_(False)
    swapped, _ = swap([block])
    weight = block.linear.weight
    assert weight.shape == (6, 6) and weight.dtype == torch.float32
    assert (torch.ones(6) @ weight).isnan().all()
    with pytest.raises(RuntimeError):
        weight.copy_(torch.zeros(6, 6))
    with pytest.raises(AssertionError, match="is given what is away"), RefusesAway(swapped):
        block.linear(torch.ones(6))


def test_tensors_in_buffers_are_aligned_and_keep_their_strides() -> None:
    chain = Chain(2).to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
    strides = {name: parameter.stride() for name, parameter in chain.named_parameters()}
    swapped, _ = swap(chain.blocks)
    with torch.no_grad():
        chain(given())
    assert resident(swapped, chain.blocks) == [0, 1]
    starts = {p.untyped_storage().data_ptr() for p in chain.parameters()}
    assert len(starts) == 2  # two buffers
    for name, parameter in chain.named_parameters():
        start = parameter.untyped_storage().data_ptr()
        assert (parameter.data_ptr() - start) % ALIGNMENT == 0
        assert parameter.stride() == strides[name]


def test_masters_are_read_and_written_whole() -> None:
    chain = Chain(4).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in chain.state_dict().items()}
    swapped, _ = swap(chain.blocks)
    with torch.no_grad():
        chain(given())
        with swapped.masters(), swapped.masters():
            state = chain.state_dict()
            assert all(torch.equal(state[name], before[name]) for name in before)
            for parameter in chain.parameters():
                parameter.mul_(0.5)
            with pytest.raises(AssertionError, match="masters"):
                chain(given())
        assert all(map(swapped.is_away, chain.parameters()))
        found = chain(given())
        other = Chain(4)
        other.load_state_dict({name: tensor * 0.5 for name, tensor in before.items()})
        assert torch.equal(found, other(given()))


def test_changed_weights_go_back_before_their_buffer_is_used_again() -> None:
    chain = Chain(5)
    swapped, store = swap(chain.blocks)

    def double(number: int) -> None:
        for parameter in chain.blocks[number].parameters():
            parameter.data.mul_(2)
        swapped.changed(chain.blocks[number].parameters())

    swapped.leaving.append(double)
    with torch.no_grad():
        chain(given())
    with swapped.masters():
        state, first = chain.state_dict(), Chain(5).state_dict()
        assert all(torch.equal(state[name], 2 * first[name]) for name in state)
    assert store.returns == 5


def test_a_plan_takes_the_largest_spread_evenly() -> None:
    blocks = [nn.Linear(2, size) for size in (1, 9, 9, 9, 9, 9, 9, 1, 1, 4)]

    def chosen(count: int) -> list[int]:
        return [blocks.index(block) for block in plan_swap(blocks, count).blocks]

    assert chosen(2) == [2, 5]
    assert chosen(3) == [2, 4, 6]
    assert chosen(7) == [1, 2, 3, 4, 5, 6, 9]
    assert chosen(99) == list(range(10))
