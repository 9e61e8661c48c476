"""What validation has found so far: the lowest loss, and how long ago that was. The state holds it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from library.options.validation import ValidationOptions
from library.problems import UserError, warn

if TYPE_CHECKING:
    from library.training.batches import BatchSource


@dataclass
class Standing:
    """Where a run stands by its validation losses.

    pictures: a fingerprint of the held-out pictures: losses of other pictures cannot be compared.
    best: the lowest loss so far; None before the first validation.
    best_step: steps done when it was measured.
    since: validations after it.
    measured_step: steps done at the last validation; -1 before the first.
    """

    pictures: str = ""
    best: float | None = None
    best_step: int = 0
    since: int = 0
    measured_step: int = -1

    def take(self, loss: float, step: int) -> bool:
        """Note the loss after `step` steps. Returns whether it is the lowest so far.

        Every validation measures the same pictures, noise and timesteps, so losses can be compared directly.
        NaN is never the lowest.
        """
        is_best = loss < (float("inf") if self.best is None else self.best)
        if is_best:
            self.best, self.best_step, self.since = loss, step, 0
        else:
            self.since += 1
        self.measured_step = step
        return is_best

    def ends_run(self, options: ValidationOptions) -> bool:
        """Whether --early_stopping_patience is used up."""
        patience = options.early_stopping_patience
        return patience is not None and self.since >= patience

    @property
    def lowest(self) -> str:
        """The lowest loss and where it was, in words."""
        return "none yet" if self.best is None else f"{self.best:.4f} of step {self.best_step}"

    def as_dict(self) -> dict[str, Any]:
        """The fields, for the state."""
        return asdict(self)


def standing_at_start(
    saved: dict[str, Any], held_out: BatchSource | None, options: ValidationOptions, seed: int
) -> Standing:
    """A run's standing at its start: the state's, or a new one if other pictures are held out now.

    seed: of the noise of the validation.
    Raises UserError if early stopping has already ended the run.
    """
    pictures = _fingerprint(held_out, options, seed)
    standing = Standing(**saved) if saved else Standing(pictures)
    if standing.pictures != pictures:
        if standing.best is not None:
            warn(f"other images are held out than before: the lowest loss, {standing.lowest}, is forgotten")
        return Standing(pictures)
    if standing.ends_run(options):
        cause = f"the state already has {standing.since} validations since the lowest loss"
        raise UserError.of("--early_stopping_patience", cause, "raise it or leave it out")
    return standing


def _fingerprint(held_out: BatchSource | None, options: ValidationOptions, seed: int) -> str:
    if held_out is None:
        return ""
    text = "\n".join([f"{options.max_validation_steps} {seed}", *held_out.contents()])
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()
