"""What the planner says of blocks that come and go, beside what their store counts."""

from __future__ import annotations

import pytest
import torch
from kinds import make_kind
from long_cases import long
from parts_of_runs import LORA, job_of, noisy_batch
from swapped import RefusesAway

from library.models.swapping.stores import CountingStore
from library.training.memory.forecast import run_memory
from library.training.start.model_setup import place_model, set_up_model
from library.training.start.stepping import make_stepper

BF16 = ("--mixed_precision", "bf16")


@pytest.mark.parametrize(
    ("more", "count"),
    [
        (LORA, 4),
        ((*LORA, *BF16), 99),
        ((*LORA, *BF16, "--fp8_base"), 8),
        ((*BF16, "--full_bf16", "--fused_backward_pass"), 6),
        long((*LORA, *BF16, "--fp8_base"), 1),
        long(LORA, 99),
        long((*LORA, *BF16), 3),
    ],
)
def test_weights_on_the_device_are_the_planners_to_the_byte_and_none_is_used_that_is_away(
    more: tuple, count: int
) -> None:
    model = make_kind("sdxl", shallow=True)
    job = job_of(model, *more, "--blocks_to_swap", count)
    set_up_model(job)
    batch = noisy_batch(model)
    told = run_memory(job.task, job.run, job.session, batch)
    before = sum(tensor.nbytes for tensor in (*job.task.parameters(), *job.task.buffers()))
    place_model(job)
    swapped, store = model.swapped, model.swapped.store
    assert isinstance(store, CountingStore)
    stay = [t for t in (*job.task.parameters(), *job.task.buffers()) if not swapped.is_away(t)]
    assert told.weights == sum(tensor.nbytes for tensor in stay) + store.device_bytes
    assert told.main == store.main_bytes
    assert (told.weights < before) == (count > 2)  # two buffers hold two blocks

    stepper = make_stepper(job)
    stepper.start()
    with RefusesAway(swapped):
        for step in range(2):
            stepper.forward_backward(batch)
            assert stepper.loss.isfinite()
            stepper.optimizer_step(step)
    assert (store.returns == 0) == ("--fused_backward_pass" not in more)
    assert store.loads >= min(count, 8)
    assert store.device_bytes + sum(tensor.nbytes for tensor in stay) == told.weights


def test_the_order_of_the_blocks_is_that_of_execution() -> None:
    model, called = make_kind("sdxl"), []
    blocks = model.transformer_blocks()
    for number, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda *_, number=number: called.append(number))
    job = job_of(model, *LORA)
    with torch.no_grad():
        job.task(noisy_batch(model))
    assert called == list(range(len(blocks)))
    kind = type(blocks[0])
    assert {id(b) for b in model.denoiser.modules() if isinstance(b, kind)} == set(map(id, blocks))
    assert [b for b in model.denoiser.modules() if isinstance(b, kind)] != blocks  # not that of its modules
