"""How many operators a step dispatches, and that it reads nothing from the device: bounds that hold on any
machine. A step of a small batch on a GPU takes as long as it takes to launch them.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from kinds import make_kind
from operator_counts import OperatorCount, count_step
from parts_of_runs import FUSED, LORA, noisy_batch, stepper_of
from thin_models import thin_model

from library.training.tasks.task import Task

BF16 = ("--mixed_precision", "bf16")


def count(family: str, *words: object, has_text: bool = True) -> OperatorCount:
    model = thin_model(family)
    batch = noisy_batch(model, has_text=has_text)
    return count_step(stepper_of(model, *words, *BF16, *FUSED), batch)


@pytest.mark.parametrize(
    ("family", "has_text", "most"),
    [("sdxl", True, 7_700), ("sd1", True, 2_490), ("sd1", False, 2_670)],
)
def test_a_lora_step_dispatches_few_operators_and_reads_nothing(
    family: str, has_text: bool, most: int
) -> None:
    found = count(family, *LORA, has_text=has_text)
    assert found.total <= most
    assert found.of("optimizer") <= 40
    assert found.device_reads == 0


def test_a_step_of_fine_tuning_casts_its_weights_all_at_once() -> None:
    found = count("sd1")
    assert found.total <= 1_740
    assert found.of("optimizer") <= 40
    assert found.device_reads == 0
    casts = [found.operators[part]["_to_copy"] for part in ("forward", "backward")]
    assert max(casts) <= 10 and found.operators["backward"]["_foreach_copy_"] == 1


def test_casts_all_at_once_change_no_bit_of_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for casts in (True, False):
        if not casts:
            monkeypatch.setattr(Task, "computing_in", lambda *_: nullcontext())
        stepper = stepper_of(make_kind("sd1"), "--train_text_encoder", "--gradient_checkpointing", *BF16)
        task = stepper.learner.task
        stepper.start()
        for _ in range(2):  # gradients of two batches add up
            stepper.forward_backward(noisy_batch(task.model))
        gradients = [p.grad for p in task.parameters() if p.grad is not None]
        assert not any({"weight", "bias"} & vars(module).keys() for module in task.modules())
        found.append([stepper.loss, *(gradient.clone() for gradient in gradients)])
    assert len(found[0]) == len(found[1]) > 300
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
