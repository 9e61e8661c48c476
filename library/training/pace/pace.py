"""Pace: asks the clock and the card of a run, and tells when the run crawls."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from library.problems import warn
from library.training.job import Job
from library.training.pace.card import Card, CudaCard
from library.training.pace.clock import Clock
from library.training.pace.findings import Remedies, line
from library.training.pace.remedies import remedies_for
from library.training.pace.watch import LOOK_EVERY, Watch


@dataclass
class Pace:
    """Follows the steps of a run in one process.

    card: what computes; None where nothing can be told of it, and nothing is watched.
    """

    clock: Clock
    card: Card | None
    remedies: Remedies
    watch: Watch = field(default_factory=Watch)
    _steps: int = 0

    def after_step(self) -> None:
        """Take in what the device is through with and, every tenth step, look at the card. It reads no tensor
        and waits for nothing.
        """
        for batch in self.clock.passed():
            self.watch.add(batch)
        self._steps += 1
        if self.card is not None and (self._steps == 1 or self._steps % LOOK_EVERY == 0):
            self._look(self.card)

    def _look(self, card: Card) -> None:
        try:
            finding = self.watch.look(card.read())
        except Exception:  # drivers fail in many ways, and nothing that is learned depends on this
            self.card = None
            return
        if finding is not None:
            warn(line(finding, self.remedies))


def make_pace(job: Job, clock: Clock) -> Pace:
    """What follows the steps of a run. On the CPU only the parts' times are kept: other programs change
    its speed all the time, and there is nothing to spill.
    """
    return Pace(clock, card_of(job.session.device), remedies_for(job.run))


def card_of(device: torch.device) -> Card | None:
    """What tells of a device; None where nothing does."""
    return CudaCard(device) if device.type == "cuda" else None
