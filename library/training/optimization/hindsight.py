"""What the host learns of a step only after it: nothing waits for the device.

Whether gradients are bad is decided on the device. What an optimizer keeps on the host (step counters,
numbers in its groups) has changed by then; when a bad step is heard of, that is undone, before the next step
or a state uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Claim:
    """What to undo once `flag`, a bool on the host, is there and true. arrival: tells when it is there."""

    flag: Tensor
    arrival: torch.cuda.Event | None
    undo: Callable[[], None]


class Hindsight:
    """Collects what must be undone on the host if a step turns out to have been bad."""

    def __init__(self) -> None:
        self._claims: list[_Claim] = []

    def expect(self, is_bad: Tensor, undo: Callable[[], None]) -> None:
        """Have something undone if the step was bad.

        is_bad: a bool scalar on the device; its copy to the host is under way when this returns.
        """
        arrival = None
        flag = torch.empty((), dtype=torch.bool, pin_memory=is_bad.is_cuda)
        flag.copy_(is_bad, non_blocking=is_bad.is_cuda)
        if is_bad.is_cuda:  # other devices have no copies that run beside the next step
            arrival = torch.cuda.Event()
            arrival.record()
        self._claims.append(_Claim(flag, arrival, undo))

    def settle(self) -> None:
        """Undo what bad steps did, the last change first. Called a step later, it finds all flags arrived."""
        claims, self._claims = self._claims, []
        for claim in reversed(claims):
            if claim.arrival is not None:
                claim.arrival.synchronize()
            if claim.flag.numpy():
                claim.undo()

    def drop(self) -> None:
        """Undo nothing: what was changed is replaced as a whole, by that of a state."""
        self._claims = []
