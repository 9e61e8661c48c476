"""Steps whose loss or gradients are no finite numbers: left out, named, and the end of a run when they go on.

Nothing here waits for the device, except with optimizers that cannot leave out a step by themselves: then one
number is read before each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from library.data.batch import Batch
from library.problems import UserError, warn
from library.training.optimization.self_tuning import unwrapped
from library.training.session import Session
from library.training.tasks.task import Task

# How much of a bad step an overflow counts under a loss scaler: it finds its scale by overflows, and needs
# about 20 in a row at worst.
OVERFLOW = 0.25
MOST_NAMED = 8  # pictures in one message


class BrokeDown(UserError):
    """Too many steps in a row were left out."""


@dataclass(frozen=True)
class Seen:
    """A batch of a step: its pictures, what became their timesteps (on the CPU), and their losses, which stay
    on the device.
    """

    names: list[str]
    u: Tensor
    losses: Tensor


@dataclass
class Guard:
    """Takes the optimizer's steps. optimizer: as accelerate prepared it. limit: bad steps in a row that end a
    run.

    in_a_row: the bad steps up to now, a scalar on the device, 0 after a good one; equal in all processes.
    """

    session: Session
    task: Task
    optimizer: torch.optim.Optimizer
    limit: int
    in_a_row: Tensor
    seen: list[Seen] = field(default_factory=list)

    def remember(self, batch: Batch) -> None:
        """Remember a batch that just went forward, for messages. batch: on the CPU."""
        assert self.task.sample_losses is not None
        self.seen.append(Seen(batch.names, batch.u, self.task.sample_losses))

    def take_seen(self) -> list[Seen]:
        """The batches of the step that was just done; they are not remembered any more."""
        seen, self.seen = self.seen, []
        return seen

    @torch.no_grad()
    def step(self, loss: Tensor, norm: Tensor) -> None:
        """Take the optimizer's step, or leave weights and state as they are when the gradients are bad.

        loss: of the step, in this process. norm: of the gradients, equal in all processes.
        """
        overflows = ~norm.isfinite()
        if self.session.accelerator.scaler is not None:
            self.optimizer.step()  # the scaler leaves out steps with bad gradients
            weight = torch.where(self._is_bad_anywhere(loss), 1.0, OVERFLOW * overflows)
        else:
            step_unless(overflows, self.optimizer, unwrapped(self.optimizer))
            weight = overflows.float()
        self.count(weight)

    def count(self, weight: Tensor) -> None:
        """Count a step as so much of a bad one; 0 is a good one."""
        self.in_a_row = torch.where(weight > 0, self.in_a_row + weight, 0.0)

    def _is_bad_anywhere(self, loss: Tensor) -> Tensor:
        is_bad = (~loss.isfinite()).float()
        if self.session.accelerator.num_processes > 1:
            is_bad = self.session.accelerator.reduce(is_bad, "sum")
        return is_bad > 0

    def report(self, step: int, loss: float, in_a_row: float, seen: list[Seen]) -> None:
        """Name a bad step. All processes come here together.

        Raises BrokeDown when it is one too many.
        """
        if not math.isfinite(loss) or self.session.accelerator.scaler is None:
            shares = self.session.sharing().gather([entry for batch in seen for entry in self._named(batch)])
            pictures = [entry for share in shares for entry in share]
            # Those whose loss is no number; else all: the gradients are of all together.
            named = [text for text, is_finite in pictures if not is_finite] or [text for text, _ in pictures]
            what = "a gradient is no number" if math.isfinite(loss) else f"the loss is {loss}"
            if self.session.is_main:
                warn(f"step {step}: {what}; the step was left out ({_listed(dict.fromkeys(named))})")
        if in_a_row >= self.limit:
            raise BrokeDown.of(
                f"step {step}",
                "the last steps were all left out, because losses or gradients are no numbers",
                "lower the learning rate, look at the pictures named above, or train with --mixed_precision "
                "bf16 instead of fp16",
            )

    def _named(self, batch: Seen) -> list[tuple[str, bool]]:
        """Each picture with its timestep, and whether its loss is a number."""
        times = self.task.objective.sample_t(batch.u, *self.task.options.timestep_range)
        entries = zip(batch.names, times.tolist(), batch.losses.tolist(), strict=True)
        return [(f"{name} at timestep {t:g}", math.isfinite(loss)) for name, t, loss in entries]


def step_unless(is_bad: Tensor, optimizer: torch.optim.Optimizer, inner: torch.optim.Optimizer) -> bool:
    """Take an optimizer's step, unless gradients are bad. inner: it without accelerate's wrapper. Returns
    False when it was left out, as far as this is known here.

    With torch's fused optimizers the device decides; they take the word of a loss scaler so.
    """
    if not getattr(inner, "_step_supports_amp_scaling", False):
        if is_bad:
            return False
        optimizer.step()
        return True
    amp: Any = inner  # torch.amp.GradScaler sets these two attributes, which no class declares
    amp.grad_scale, amp.found_inf = None, is_bad.float()
    optimizer.step()
    del amp.grad_scale, amp.found_inf
    return True


def spoiled(loss: Tensor) -> Tensor:
    """The loss with gradients that are no numbers when it is none: their norm then tells of both, and it is
    equal in all processes.
    """
    return loss * (1 + 0 * loss.detach())


def gradient_norm(parameters: Iterable[torch.nn.Parameter]) -> Tensor:
    """The norm of all gradients together, float32 whatever they are."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
