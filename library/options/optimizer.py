"""Optimizer and learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from library.options.fields import option, require

ScheduleName = Literal["constant", "constant_with_warmup", "linear", "cosine"]


def read_steps(value: Any) -> int | float:
    """Steps: a whole number, or a share of the whole run as `0.1` or `10%`. Raises ValueError."""
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or number < 0 or (number > 1 and number != int(number)):
        raise ValueError(f"expects steps (100) or a share of the run (0.1 or 10%), got {value!r}")
    is_share = text.endswith("%") or number < 1 or "." in text and number == 1
    return float(number) if is_share and number else int(number)


@dataclass(frozen=True)
class OptimizerOptions:
    """Optimizer and learning rate."""

    optimizer_type: str = option(
        "", "AdamW (default), AdamW8bit, SGDNesterov, Lion, or any class as package.Class", metavar="NAME"
    )
    optimizer_args: tuple[str, ...] = option(
        (), "further arguments of the optimizer: weight_decay=0.01 betas=0.9,0.999", metavar="K=V"
    )
    use_8bit_adam: bool = option(False, "the same as --optimizer_type AdamW8bit")
    use_lion_optimizer: bool = option(False, "the same as --optimizer_type Lion")
    learning_rate: float = option(2e-6, "learning rate", metavar="X")
    lr_scheduler: ScheduleName = option("constant", "how the learning rate changes over the run")
    lr_warmup_steps: int | float = option(
        0,
        "steps in which the learning rate rises from 0: a number, or a share as 0.1 or 10%",
        convert=read_steps,
        metavar="N",
    )

    def __post_init__(self) -> None:
        chosen = bool(self.optimizer_type) + self.use_8bit_adam + self.use_lion_optimizer
        require(
            (
                chosen <= 1,
                "optimizer_type",
                "choose one of --optimizer_type, --use_8bit_adam, --use_lion_optimizer",
            ),
            (self.learning_rate >= 0, "learning_rate", "must be 0 or more"),
            (
                not (self.lr_warmup_steps and self.lr_scheduler == "constant"),
                "lr_warmup_steps",
                "has no effect with --lr_scheduler constant; did you mean constant_with_warmup?",
            ),
            *(
                (("=" in arg), "optimizer_args", f"expects name=value, got {arg!r}")
                for arg in self.optimizer_args
            ),
        )

    @property
    def optimizer_name(self) -> str:
        if self.use_8bit_adam:
            return "AdamW8bit"
        if self.use_lion_optimizer:
            return "Lion"
        return self.optimizer_type or "AdamW"
