"""How long and in what precision to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from library.options.fields import option, require, warn_unless

Precision = Literal["no", "fp16", "bf16"]


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
    mixed_precision: Precision = option("no", "precision of the computation")
    full_bf16: bool = option(
        False, "keep trained weights and gradients in bf16; steps are rounded by chance, so that none is lost"
    )
    full_fp16: bool = option(
        False, "keep trained weights and gradients in fp16; steps are rounded by chance, so that none is lost"
    )
    gradient_checkpointing: bool = option(
        False, "recompute activations in the backward pass: less memory, slower"
    )
    cpu_offload_checkpointing: bool = option(
        False, "keep what --gradient_checkpointing saves in main memory: less of the GPU's, slower"
    )
    gradient_accumulation_steps: int = option(1, "batches per optimizer step", metavar="N")
    dry_run: bool = option(
        False,
        "check everything, say what would be trained and written and how much memory it takes, try one step "
        "and one save, and stop; nothing is written",
    )
    max_grad_norm: float = option(1.0, "clip the gradient's norm to this; 0 does not clip", metavar="X")
    max_bad_steps: int = option(
        10, "stop after this many steps in a row whose loss or gradient is no number", metavar="N"
    )

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
            *(
                (
                    not getattr(self, f"full_{precision}") or self.mixed_precision == precision,
                    f"full_{precision}",
                    f"needs --mixed_precision {precision}",
                )
                for precision in ("bf16", "fp16")
            ),
            (
                self.gradient_checkpointing or not self.cpu_offload_checkpointing,
                "cpu_offload_checkpointing",
                "needs --gradient_checkpointing",
            ),
            (self.max_grad_norm >= 0, "max_grad_norm", "must be 0 or more"),
            (self.max_bad_steps >= 1, "max_bad_steps", "must be 1 or more"),
            (self.seed is None or 0 <= self.seed < 2**63, "seed", "must be between 0 and 2^63 - 1"),
        )
        warn_unless(
            (not (self.initial_epoch and self.initial_step), "initial_epoch", "gives way to --initial_step")
        )

    def initial(self, steps_per_epoch: int) -> int | None:
        """How many steps are to be taken as done; None when nothing was said about it, as with 0."""
        epochs_done = max(0, (self.initial_epoch or 0) - 1)
        return self.initial_step or epochs_done * steps_per_epoch or None

    @property
    def trains_in_16_bits(self) -> bool:
        return self.full_bf16 or self.full_fp16

    @property
    def trained_precision(self) -> Literal["float", "fp16", "bf16"]:
        """Of the weights that are trained."""
        if self.full_bf16:
            return "bf16"
        return "fp16" if self.full_fp16 else "float"
