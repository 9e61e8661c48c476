"""How long and in what precision to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from library.options.fields import below, option, refuse, warn_when
from library.options.saving import Precision
from library.wording import shortened

MixedPrecision = Literal["no", "fp16", "bf16"]


def read_block_count(value: object) -> int | Literal["auto"]:
    """A number of blocks, or auto. Raises ValueError."""
    text = str(value).strip().removesuffix(".0")
    if text.casefold() == "auto":
        return "auto"
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise ValueError(f"expects a number of blocks or auto, got {shortened(repr(value))}")
    return int(text)


@dataclass(frozen=True)
class TrainingOptions:
    """Training."""

    max_train_steps: int = option(1600, "optimizer steps to train", metavar="N", zero_unset=True)
    max_train_epochs: int | None = option(
        None, "epochs to train; wins over --max_train_steps", metavar="N", zero_unset=True
    )
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
    mixed_precision: MixedPrecision = option("no", "precision of the computation")
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
    blocks_to_swap: int | Literal["auto"] | None = option(
        None,
        "keep so many of the U-Net's transformer blocks, the largest first, in main memory, each on the GPU "
        "while it is needed: far less of the GPU's memory, slower where the bus is; turns on "
        "--gradient_checkpointing; where the U-Net is trained, it needs --fused_backward_pass; auto: as "
        "few as fit",
        convert=read_block_count,
        metavar="N|auto",
        zero_unset=True,
    )
    gradient_accumulation_steps: int = option(1, "batches per optimizer step", metavar="N", zero_unset=True)
    dry_run: bool = option(
        False,
        "check everything, say what would be trained and written and how much memory it takes, try one step "
        "and one save, and stop; nothing is written",
    )
    assume_vram: float | None = option(
        None, "propose options for a card with so much memory instead of the one at hand", metavar="GB"
    )
    assume_tflops: float | None = option(
        None, "how fast that card multiplies matrices of 16 bits (default: as measured here)", metavar="X"
    )
    assume_gb_s: float | None = option(
        None, "how many GB of its memory it reads in a second (default: as measured here)", metavar="X"
    )
    max_grad_norm: float = option(1.0, "clip the gradient's norm to this; 0 does not clip", metavar="X")
    allow_shared_memory: bool = option(
        False,
        "on Windows and WSL, let a run that the GPU has no room for go on in main memory, many times slower",
    )
    max_bad_steps: int = option(
        10, "stop after this many steps in a row whose loss or gradient is no number", metavar="N"
    )

    def __post_init__(self) -> None:
        seed = self.seed
        refuse(
            *below(1, self, "max_train_steps", "max_train_epochs"),
            *below(0, self, "initial_epoch", "initial_step"),
            *below(1, self, "gradient_accumulation_steps"),
            (
                self.blocks_to_swap and self.cpu_offload_checkpointing,
                "blocks_to_swap",
                "does not work with --cpu_offload_checkpointing: both would copy at the same time",
            ),
            (
                self.full_bf16 and self.mixed_precision != "bf16",
                "full_bf16",
                "needs --mixed_precision bf16",
            ),
            (
                self.full_fp16 and self.mixed_precision != "fp16",
                "full_fp16",
                "needs --mixed_precision fp16",
            ),
            *(
                (value is not None and value <= 0, name, "must be above 0")
                for name, value in self._assumed.items()
            ),
            *below(0, self, "max_grad_norm"),
            *below(1, self, "max_bad_steps"),
            (seed is not None and not 0 <= seed < 2**63, "seed", "must be between 0 and 2^63 - 1"),
        )
        warn_when(
            (self.initial_epoch and self.initial_step, "initial_epoch", "gives way to --initial_step"),
            *(
                (value is not None and not self.dry_run, name, "has no effect without --dry_run")
                for name, value in self._assumed.items()
            ),
            (
                self.cpu_offload_checkpointing and not self.gradient_checkpointing,
                "cpu_offload_checkpointing",
                "has no effect without --gradient_checkpointing",
            ),
        )

    def initial(self, steps_per_epoch: int) -> int | None:
        """How many steps count as done when the run begins; None if no option says so (0 says nothing)."""
        epochs_done = max(0, (self.initial_epoch or 0) - 1)
        return self.initial_step or epochs_done * steps_per_epoch or None

    @property
    def _assumed(self) -> dict[str, float | None]:
        names = ("assume_vram", "assume_tflops", "assume_gb_s")
        return {name: getattr(self, name) for name in names}

    @property
    def trains_in_16_bits(self) -> bool:
        return self.full_bf16 or self.full_fp16

    @property
    def trained_precision(self) -> Precision:
        """The precision of the weights that are trained."""
        if self.full_bf16:
            return "bf16"
        return "fp16" if self.full_fp16 else "float"
