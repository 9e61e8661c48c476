"""What the planner says of blocks that come and go, beside what their store counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from full_size import full_size_model
from kinds import make_kind
from long_cases import long
from parts_of_runs import LORA, job_of, latent_batch, noisy_batch
from swapped import RefusesAway

from library.models.swapping.plan import plan_swap
from library.models.swapping.stores import CountingStore
from library.training.memory.estimate import Memory
from library.training.memory.forecast import run_memory, with_swapping
from library.training.start import swapping
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
    weights = place_model(job)
    swapped, store = model.swapped, model.swapped.store
    assert isinstance(store, CountingStore)
    stay = [t for t in (*job.task.parameters(), *job.task.buffers()) if not swapped.is_away(t)]
    assert told.weights == sum(tensor.nbytes for tensor in stay) + store.device_bytes
    assert told.main == store.main_bytes
    assert (told.weights < before) == (count > 2)  # two buffers hold two blocks

    stepper = make_stepper(job, weights)
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


def test_auto_takes_the_smallest_number_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_kind("sdxl", shallow=True)
    job = job_of(model, *LORA, "--blocks_to_swap", "auto")
    weights = sum(parameter.nbytes for parameter in job.task.parameters())
    without, lean = Memory(weights, 100, 0, weights), Memory(weights, 100, 0, 1000)

    def recomputing(*parts: object) -> Memory:
        return lean if model.denoiser.is_gradient_checkpointing else without

    monkeypatch.setattr(swapping, "run_memory", recomputing)
    monkeypatch.setattr(swapping, "largest_batch", lambda job: None)
    blocks = model.transformer_blocks()
    peaks = [with_swapping(lean, plan_swap(blocks, count)).peak for count in range(len(blocks) + 1)]

    def chosen(fits: int) -> tuple[int, bool]:
        """How many blocks, and whether activations are recomputed, where so many bytes fit."""
        model.swap_plan = plan_swap(blocks, 0)
        model.use_gradient_checkpointing(denoiser=False, text_encoders=False)
        monkeypatch.setattr(swapping, "device_memory", lambda device: (-(-fits * 100 // 85), 2**40))
        set_up_model(job)
        return len(model.swap_plan.blocks), model.denoiser.is_gradient_checkpointing

    assert chosen(without.peak) == (0, False)
    assert chosen(peaks[0]) == (0, True)
    for count in range(1, len(blocks) + 1):
        first = next(n for n, peak in enumerate(peaks) if peak <= peaks[count])
        assert chosen(peaks[count]) == (first, True)
    assert chosen(min(peaks) - 100) == (len(blocks), True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "most"),
    [
        ((*LORA, "--cache_text_encoder_outputs"), 2.0),
        (("--full_bf16", "--fused_backward_pass", "--optimizer_type", "AdaFactor"), 2.2),
    ],
)
def test_sdxl_at_1024_takes_little(words: tuple, most: float) -> None:
    """GiB, of a LoRA of rank 16 with AdamW, and of the whole U-Net; texts and latents cached. No tensor here
    takes memory.
    """
    model = full_size_model("sdxl").requires_grad_(False)
    job = job_of(model, *words, *BF16, "--blocks_to_swap", 70, "--cache_latents")
    set_up_model(job)
    sizes = {"hidden_state1": (1, 77, 768), "hidden_state2": (1, 77, 1280), "pool2": (1, 1280)}
    text = {name: torch.zeros(size, dtype=torch.bfloat16) for name, size in sizes.items()}
    batch = replace(latent_batch(model, 128), text=text, tokens=())
    memory = run_memory(job.task, job.run, job.session, batch)
    # On a GPU they leave the device once their results are cached.
    cached = sum(p.nbytes for part in (model.vae, model.text_encoders) for p in part.parameters())
    assert (memory.peak - cached) / 2**30 == pytest.approx(most, abs=0.1)
    assert memory.main == 60 * 69_511_680 + 10 * 20_010_240  # every tensor is a multiple of 256 bytes
