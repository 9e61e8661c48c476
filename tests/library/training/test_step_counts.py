"""How many operators a step dispatches, and that it reads nothing from the device: bounds that hold on any
machine. A step of a small batch on a GPU takes as long as it takes to launch them.
"""

from __future__ import annotations

import pytest
from operator_counts import OperatorCount, count_step
from parts_of_runs import FUSED, LORA, noisy_batch, stepper_of
from thin_models import thin_model

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


def test_a_step_of_fine_tuning_reads_nothing() -> None:
    found = count("sd1")
    assert found.device_reads == 0
    assert found.of("optimizer") <= 40
