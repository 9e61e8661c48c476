"""Validation: the loss on images that are not trained on."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, option, refuse, warn_when


@dataclass(frozen=True)
class ValidationOptions:
    """Validation."""

    validate_every_n_steps: int | None = option(
        None, "measure the held-out images of --validation_split every n steps", metavar="N", zero_unset=True
    )
    validate_every_n_epochs: int | None = option(
        None, "measure them every n epochs (default: 1, unless steps are given)", metavar="N", zero_unset=True
    )
    max_validation_steps: int | None = option(
        None, "batches to measure at most (default: all)", metavar="N", zero_unset=True
    )
    save_best: bool = option(False, "keep the result with the lowest validation loss so far as <name>-best")
    early_stopping_patience: int | None = option(
        None,
        "end the run after n validations in a row without a new lowest loss",
        metavar="N",
        zero_unset=True,
    )

    def __post_init__(self) -> None:
        refuse(
            *below(1, self, "validate_every_n_steps", "validate_every_n_epochs"),
            *below(1, self, "max_validation_steps", "early_stopping_patience"),
        )
        warn_when(
            (
                self.validate_every_n_steps is not None and self.validate_every_n_epochs is not None,
                "validate_every_n_epochs",
                "has no effect with --validate_every_n_steps",
            )
        )
