"""A moving average of what is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from library.options.fields import option, refuse, warn_when

DECAY = 0.9999


@dataclass(frozen=True)
class AveragingOptions:
    """Moving average."""

    use_ema: bool = option(
        False,
        "keep an exponential moving average of what is trained: previews, validation and results use it",
    )
    ema_decay: float | None = option(
        None, f"share of the average that each step keeps, below 1 (default {DECAY})", metavar="X"
    )
    ema_device: Literal["cpu", "cuda"] | None = option(
        None, "where the average is kept (default: with the model); cpu frees the GPU of it"
    )

    def __post_init__(self) -> None:
        decay = self.ema_decay
        refuse((decay is not None and not 0 <= decay < 1, "ema_decay", "is a share from 0 to below 1"))
        given = {"ema_decay": self.ema_decay, "ema_device": self.ema_device}
        warn_when(
            *(
                (value is not None and not self.use_ema, name, "has no effect without --use_ema")
                for name, value in given.items()
            )
        )

    @property
    def decay(self) -> float:
        return DECAY if self.ema_decay is None else self.ema_decay
