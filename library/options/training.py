"""How long and in what precision to train, and what is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from library.options.fields import option, require, warn_unless


@dataclass(frozen=True)
class TrainingOptions:
    """Training."""

    max_train_steps: int = option(1600, "optimizer steps to train", metavar="N")
    max_train_epochs: int | None = option(None, "epochs to train; wins over --max_train_steps", metavar="N")
    initial_epoch: int | None = option(
        None, "begin as if the epochs before this one were done; 1 is the first", metavar="N"
    )
    initial_step: int | None = option(
        None, "begin as if so many steps were done; wins over --initial_epoch", metavar="N"
    )
    skip_until_initial_step: bool = option(
        False, "leave out the batches of steps before --initial_step, as is always done"
    )
    seed: int | None = option(
        None, "seed of everything random (default: a new one, printed and kept in the metadata)", metavar="N"
    )
    mixed_precision: Literal["no", "fp16", "bf16"] = option("no", "precision of the computation")
    gradient_checkpointing: bool = option(
        False, "recompute activations in the backward pass: less memory, slower"
    )
    gradient_accumulation_steps: int = option(1, "batches per optimizer step", metavar="N")
    max_grad_norm: float = option(1.0, "clip the gradient's norm to this; 0 does not clip", metavar="X")

    def __post_init__(self) -> None:
        require(
            (self.max_train_steps >= 1, "max_train_steps", "must be 1 or more"),
            (
                self.max_train_epochs is None or self.max_train_epochs >= 1,
                "max_train_epochs",
                "must be 1 or more",
            ),
            *(
                (getattr(self, name) is None or getattr(self, name) >= 0, name, "must be 0 or more")
                for name in ("initial_epoch", "initial_step")
            ),
            (self.gradient_accumulation_steps >= 1, "gradient_accumulation_steps", "must be 1 or more"),
            (self.max_grad_norm >= 0, "max_grad_norm", "must be 0 or more"),
            (self.seed is None or 0 <= self.seed < 2**63, "seed", "must be between 0 and 2^63 - 1"),
        )
        warn_unless(
            (not (self.initial_epoch and self.initial_step), "initial_epoch", "gives way to --initial_step")
        )

    def initial(self, steps_per_epoch: int) -> int | None:
        """How many steps are to be taken as done; None when nothing was said about it, as with 0."""
        epochs_done = max(0, (self.initial_epoch or 0) - 1)
        return self.initial_step or epochs_done * steps_per_epoch or None


@dataclass(frozen=True)
class ObjectiveOptions:
    """Noise and loss."""

    objective: Literal["ddpm", "v", "flow"] = option(
        "ddpm",
        "ddpm: the noising of Stable Diffusion, predicting what the checkpoint predicts; v: the same, but "
        "predicting v from now on; flow: rectified flow, for models sampled that way",
    )
    flow_shift: float = option(
        1.0, "shift of the flow objective's times towards noise; 1 is none", metavar="X"
    )
    min_timestep: int | None = option(None, "lowest timestep to train, 0 to 999 (default 0)", metavar="T")
    max_timestep: int | None = option(
        None, "timesteps to train end before this, 1 to 1000 (default 1000)", metavar="T"
    )
    noise_offset: float | None = option(
        None, "add this much noise that is constant over the picture, per channel", metavar="X"
    )
    min_snr_gamma: float | None = option(
        None, "weight the loss by min(snr, gamma) / snr (Min-SNR); 5 is usual", metavar="X"
    )

    def __post_init__(self) -> None:
        low, high = self.timestep_range
        require(
            (0 <= low <= 999, "min_timestep", "must be 0 to 999"),
            (1 <= high <= 1000, "max_timestep", "must be 1 to 1000"),
            (low < high, "min_timestep", f"must be below --max_timestep ({high})"),
            (self.flow_shift > 0, "flow_shift", "must be above 0"),
            (
                self.min_snr_gamma is None or self.min_snr_gamma >= 0,
                "min_snr_gamma",
                "must be 0 (off) or more",
            ),
        )

    @property
    def timestep_range(self) -> tuple[int, int]:
        """(lowest, one past the highest) timestep."""
        low = 0 if self.min_timestep is None else self.min_timestep
        high = 1000 if self.max_timestep is None else self.max_timestep
        return low, high
