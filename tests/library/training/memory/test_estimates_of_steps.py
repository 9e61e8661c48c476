"""The estimate of --dry_run beside the storages that are counted in real steps on the CPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from kinds import make_kind
from parts_of_runs import FUSED, LORA, noisy_batch, stepper_of
from thin_models import thin_model
from torch import nn

import fine_tune
import train_network
from library.models.ldm.model import LatentDiffusion
from library.options.optimizer import OptimizerOptions
from library.options.parser import parse
from library.param_groups import ParamGroup
from library.training.memory.estimate import BYTES_TO_ROUND, StorageCounter, estimate
from library.training.memory.forecast import with_options
from library.training.optimization.optimizers import make_optimizer
from library.training.optimization.rounding import RoundedOptimizer

BF16 = ("--mixed_precision", "bf16")
PATHS = ("--pretrained_model_name_or_path", "x", "--train_data_dir", "x", "--output_dir", "x")
WAYS = {
    "LoRA": (*LORA, *FUSED, *BF16),
    "LoRA in float32": (*LORA, *FUSED),
    "LoRA, checkpointing": (*LORA, *FUSED, *BF16, "--gradient_checkpointing"),
    "fine-tuning": (*FUSED, *BF16),
    "fine-tuning in 16 bits": (*FUSED, *BF16, "--full_bf16"),
    "in the backward pass": (*FUSED, *BF16, "--fused_backward_pass"),
}


def told_and_counted(model: LatentDiffusion, side: int, words: tuple[object, ...]) -> tuple[int, int]:
    """The most bytes at once, the task's own included, as estimated and as two real steps have them."""
    stepper, batch = stepper_of(model, *words), noisy_batch(model, side, has_text=True)
    task = stepper.learner.task
    script = train_network if "--network_module" in words else fine_tune
    run = parse(script.Run, argv=[str(word) for word in (*PATHS, "--max_train_steps", 10, *words)])
    told = estimate(task, stepper.session, batch, run.optimizer)
    told = with_options(told, task, run, stepper.session)
    own = [*task.parameters(), *task.buffers()]
    stepper.start()
    with StorageCounter(own) as counter:
        for step in range(2):
            stepper.forward_backward(batch)
            stepper.optimizer_step(step)
    return told.peak, sum(tensor.nbytes for tensor in own) + counter.peak


def test_16_bit_training_of_a_tiny_model_takes_what_was_told() -> None:
    told, counted = told_and_counted(make_kind("sd1"), 8, WAYS["fine-tuning in 16 bits"])
    assert told == pytest.approx(counted, rel=0.1)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [32, 8])
def test_every_way_of_training_takes_what_was_told(side: int, way: str) -> None:
    """At 256 pixels; and where weights count more than activations."""
    told, counted = told_and_counted(thin_model("sd1"), side, WAYS[way])
    assert told == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("count", [1, 3])
def test_a_step_of_16_bit_weights_takes_so_many_bytes_for_each(count: int) -> None:
    weights = [nn.Parameter(torch.randn(256, 256).bfloat16()) for _ in range(count)]
    make = partial(make_optimizer, options=OptimizerOptions(optimizer_type="AdamW"))
    optimizer = RoundedOptimizer([ParamGroup(params=weights, lr=1e-4, name="x")], make, seed=1)
    for _ in range(2):  # the second has the optimizer's state already
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        with StorageCounter([*weights, *(weight.grad for weight in weights)]) as counter:
            optimizer.step()
    assert counter.peak == pytest.approx(BYTES_TO_ROUND * count * 256 * 256, rel=0.01)
