"""The guard: skips steps whose gradients are not finite, names their pictures, and ends a run that has too
many of them in a row.

Nothing here waits for the device, except with optimizers that look at all gradients together, such as
Prodigy: they read the device themselves, and one number more is read before each of their steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from library.data.batch import Batch
from library.problems import UserError, warn
from library.training.optimization.gradients import is_not_finite
from library.training.optimization.part_steps import (
    PartSteps,
    decides_on_device,
    neighbours,
    steps_by_tensor,
    told_what_is_bad,
)
from library.training.optimization.self_tuning import unwrapped
from library.training.session import Session
from library.training.tasks.task import Task

# An overflow under a loss scaler counts as this much of a bad step: the scaler finds its scale by overflows,
# and needs about 20 in a row at worst.
OVERFLOW_WEIGHT = 0.25
MOST = 2**25  # weights that are stepped at once where a step may have to be taken back
MAX_NAMED = 8  # pictures in one message


class TooManyBadSteps(UserError):
    """Too many steps in a row were skipped."""


@dataclass(frozen=True)
class SeenBatch:
    """A batch that went through the forward pass.

    names: of its pictures.
    u: (batch,) in [0, 1), which became the timesteps; on the CPU.
    losses: (batch,), each sample's loss; on the device.
    """

    names: list[str]
    u: Tensor
    losses: Tensor


@dataclass
class Guard:
    """Takes the optimizer's steps, and skips those with bad gradients.

    optimizer: as accelerate prepared it.
    limit: how many bad steps in a row end a run.
    bad_in_a_row: the number of bad steps in a row so far, a scalar on the device, 0 after a good one; equal
        in all processes.
    seen: the batches of the current step, for messages.
    """

    session: Session
    task: Task
    optimizer: torch.optim.Optimizer
    limit: int
    bad_in_a_row: Tensor
    seen: list[SeenBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._steps = GuardedSteps(unwrapped(self.optimizer))

    def remember(self, batch: Batch) -> None:
        """Remember a batch that just went through the forward pass, for messages. batch: on the CPU."""
        assert self.task.sample_losses is not None
        self.seen.append(SeenBatch(batch.names, batch.u, self.task.sample_losses))

    def pop_seen(self) -> list[SeenBatch]:
        """The batches of the step that just ended; the guard forgets them."""
        seen, self.seen = self.seen, []
        return seen

    @torch.no_grad()
    def step(self, loss: Tensor, norm: Tensor) -> None:
        """Take the optimizer's step. When gradients are bad, skip it: weights and state stay unchanged.

        loss: of the step, in this process.
        norm: of the gradients, equal in all processes.
        """
        overflows = is_not_finite(norm)
        if self.session.accelerator.scaler is not None:
            self.optimizer.step()  # the scaler itself skips steps with bad gradients
            weight = torch.where(self._is_bad_anywhere(loss), 1.0, OVERFLOW_WEIGHT * overflows)
        else:
            self._steps.step(overflows)
            weight = overflows.float()
        self.count(weight)

    def count(self, weight: Tensor) -> None:
        """Count a step as `weight` bad steps; a good one, of weight 0, resets the count."""
        self.bad_in_a_row = torch.where(weight > 0, self.bad_in_a_row + weight, 0.0)

    def _is_bad_anywhere(self, loss: Tensor) -> Tensor:
        is_bad = (~loss.isfinite()).float()
        # Each process has the loss of its own share of the batch.
        if self.session.accelerator.num_processes > 1:
            is_bad = self.session.accelerator.reduce(is_bad, "sum")
        return is_bad > 0

    def report(self, step: int, loss: float, bad_in_a_row: float, seen: list[SeenBatch]) -> None:
        """Warn of a bad step and name its pictures. All processes must call this together.

        Raises TooManyBadSteps when the limit is reached.
        """
        # A loss scaler's overflows, at a finite loss, are part of its search and not worth a message.
        if not math.isfinite(loss) or self.session.accelerator.scaler is None:
            shares = self.session.sharing().gather([entry for batch in seen for entry in self._named(batch)])
            pictures = [entry for share in shares for entry in share]
            # Pictures whose loss is not finite; if there are none, all, as the gradients are of all together.
            named = [text for text, is_finite in pictures if not is_finite] or [text for text, _ in pictures]
            what = "a gradient is no number" if math.isfinite(loss) else f"the loss is {loss}"
            if self.session.is_main:
                warn(f"step {step}: {what}; the step was left out ({_join_names(dict.fromkeys(named))})")
        if bad_in_a_row >= self.limit:
            raise TooManyBadSteps.of(
                f"step {step}",
                "the last steps were all left out, because losses or gradients are no numbers",
                "lower the learning rate, look at the pictures named above, or train with --mixed_precision "
                "bf16 instead of fp16",
            )

    def _named(self, batch: SeenBatch) -> list[tuple[str, bool]]:
        """Each picture with its timestep, and whether its loss is finite."""
        times = self.task.objective.sample_t(batch.u, *self.task.options.timestep_range)
        entries = zip(batch.names, times.tolist(), batch.losses.tolist(), strict=True)
        return [(f"{name} at timestep {t:g}", math.isfinite(loss)) for name, t, loss in entries]


class GuardedSteps:
    """Takes the steps of an optimizer on all its gradients, unless they are bad."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """optimizer: without accelerate's wrapper."""
        self.optimizer = optimizer
        # Others are stepped some weights at a time: what such a part's step did is taken back if it was bad.
        is_parted = steps_by_tensor(optimizer) and not decides_on_device(optimizer)
        self._parts = neighbours(optimizer.param_groups, MOST) if is_parted else []
        self._part_steps = PartSteps(optimizer) if is_parted else None

    def step(self, is_bad: Tensor) -> None:
        """Take the step, unless gradients are bad. is_bad: a bool scalar on the gradients' device."""
        if self._part_steps is not None:
            for part in self._parts:
                self._part_steps.step_part(part, is_bad)
            self._part_steps.finish()
        elif decides_on_device(self.optimizer):
            with told_what_is_bad(self.optimizer, is_bad):
                self.optimizer.step()
        elif not is_bad:  # reads one number from the device
            self.optimizer.step()


def with_nan_gradients(loss: Tensor) -> Tensor:
    """The loss; when it is not finite, with gradients that are NaN. The norm of the gradients, which is equal
    in all processes, then tells of a bad loss too.
    """
    return loss * (1 + 0 * loss.detach())


def _join_names(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
