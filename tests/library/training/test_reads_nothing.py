"""A step waits for no device and draws nothing there: it is walked on the meta device, whose tensors have no
values, so that reading one raises.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from kinds import make_kind
from parts_of_runs import FUSED, LORA, noisy_batch, stepper_of
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from library.data.batch import Batch
from library.training.loss_log import LossLog
from library.training.optimization.ledger import GRADIENTS_EVERY
from library.training.stepper import Stepper

META = torch.device("meta")


class DrawsNothing(TorchDispatchMode):
    """Context manager; inside it drawing random numbers is an error."""

    def __torch_dispatch__(self, func: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        assert torch.Tag.nondeterministic_seeded not in func.tags, f"{func} draws"
        return func(*given, **(named or {}))


def on_meta(stepper: Stepper, batch: Batch) -> Stepper:
    """A stepper that takes its first step and then moves to the meta device. Its parameters stay the same
    objects: the optimizer and networks know them.
    """
    stepper.start()
    stepper.forward_backward(batch)
    stepper.optimizer_step(0)
    task, update = stepper.learner.task, stepper.update
    for tensor in (*task.parameters(), *task.buffers()):
        empty = tensor.detach().to(META)
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        torch.utils.swap_tensors(tensor, empty)
    move: Callable[[Any], Any] = lambda tree: tree_map_only(Tensor, lambda one: one.to(META), tree)  # noqa: E731
    for state in stepper.learner.optimizer.state.values():
        state.update(move(state))
    update.guard.bad_in_a_row = move(update.guard.bad_in_a_row)
    update.ledger._gradients, update.ledger._steps = (
        move(update.ledger._gradients),
        move(update.ledger._steps),
    )
    if (average := stepper.learner.average) is not None:
        average.values = move(average.values)
    stepper.session.accelerator.state.device = META
    stepper.start()
    return stepper


def walk(words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> Stepper:
    """Take a step of two batches whose gradients are measured, and log it. Returns what took it."""
    stepper = stepper_of(make_kind("sd1"), *words, *FUSED)
    batch = noisy_batch(stepper.learner.task.model)
    on_meta(stepper, batch)
    # There is no autocast on the meta device.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    trackers: Any = None  # told when the log is read
    log = LossLog(stepper.session.accelerator, trackers, stepper.update.guard)
    with DrawsNothing():
        for _ in range(2):
            stepper.forward_backward(batch)
        loss, figures = stepper.optimizer_step(GRADIENTS_EVERY)
        log.add(GRADIENTS_EVERY + 1, 0, loss, figures)
    assert loss.device == META and stepper.done == GRADIENTS_EVERY + 1
    return stepper


@pytest.mark.parametrize(
    "words",
    [
        (*LORA, "--mixed_precision", "bf16"),
        (*LORA, "--scale_weight_norms", 1, "--use_ema"),
        ("--train_text_encoder", "--gradient_checkpointing"),
    ],
)
def test_a_step_reads_nothing_and_draws_nothing(
    words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = walk(words, monkeypatch)
    weights = [weight for group in stepper.learner.optimizer.param_groups for weight in group["params"]]
    assert all(weight.device == META for weight in weights)
    with pytest.raises(RuntimeError, match="meta tensors"):
        weights[0].sum().item()


def test_a_draw_in_the_walk_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="dropout draws|bernoulli.* draws"):
        walk((*LORA, "--network_dropout", 0.5), monkeypatch)
