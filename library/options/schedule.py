"""How the learning rate changes over a run: a schedule of ours, or a class of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from library.options.fields import below, not_pairs, option, refuse, warn_when
from library.wording import shortened

ScheduleName = Literal[
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "piecewise_constant",
    "adafactor",
]
# The options that a schedule reads besides --lr_warmup_steps, which all but three have.
READS: dict[str, tuple[str, ...]] = {
    "cosine_with_restarts": ("lr_scheduler_num_cycles",),
    "polynomial": ("lr_scheduler_power",),
    "inverse_sqrt": ("lr_scheduler_timescale",),
    "cosine_with_min_lr": ("lr_scheduler_num_cycles", "lr_scheduler_min_lr_ratio"),
    "cosine_warmup_with_min_lr": ("lr_scheduler_num_cycles", "lr_scheduler_min_lr_ratio"),
    "warmup_stable_decay": ("lr_decay_steps", "lr_scheduler_num_cycles", "lr_scheduler_min_lr_ratio"),
}
WITHOUT_WARMUP = ("constant", "piecewise_constant", "adafactor")
NEEDS_LOWEST = ("cosine_with_min_lr", "cosine_warmup_with_min_lr")


def read_steps(value: object) -> int | float:
    """Steps as an int, or a share of the run (`0.1`, `10%`) as a float in 0..1. Raises ValueError."""
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = math.nan
    is_number = math.isfinite(number) and not isinstance(value, bool)
    if not is_number or number < 0 or (number > 1 and number != int(number)):
        shown = shortened(repr(value))
        raise ValueError(f"expects steps (100) or a share of the run (0.1 or 10%), got {shown}")
    is_share = text.endswith("%") or number < 1 or "." in text and number == 1
    return float(number) if is_share and number else int(number)


@dataclass(frozen=True)
class ScheduleOptions:
    """Learning-rate schedule."""

    lr_scheduler: ScheduleName = option("constant", "how the learning rate changes over the run")
    lr_warmup_steps: int | float = option(
        0,
        "steps in which the learning rate rises from 0: a number, or a share as 0.1 or 10%",
        convert=read_steps,
        metavar="N",
    )
    lr_decay_steps: int | float = option(
        0,
        "steps at the end in which it falls (warmup_stable_decay): a number, or a share as 0.1 or 10%",
        convert=read_steps,
        metavar="N",
    )
    lr_scheduler_num_cycles: int = option(
        1, "how often it restarts (cosine_with_restarts) or falls (with min_lr)", metavar="N", zero_unset=True
    )
    lr_scheduler_power: float = option(1.0, "power of the polynomial", metavar="X")
    lr_scheduler_timescale: int | None = option(
        None,
        "steps that inverse_sqrt counts in (default: the warm-up, or 10000)",
        metavar="N",
        zero_unset=True,
    )
    lr_scheduler_min_lr_ratio: float | None = option(
        None, "where it ends, as a share of the learning rate (cosine_with_min_lr, warmup_stable_decay)"
    )
    lr_scheduler_type: str = option(
        "",
        "a class of torch.optim.lr_scheduler, or any as package.Class, instead of --lr_scheduler",
        metavar="NAME",
    )
    lr_scheduler_args: tuple[str, ...] = option(
        (),
        "further arguments of the schedule: T_0=100 or step_rules='1:10,0.1'",
        aliases=("--scheduler_args",),
        metavar="K=V",
    )

    def __post_init__(self) -> None:
        self._check_values()
        flag = "--lr_scheduler_type" if self.lr_scheduler_type else "--lr_scheduler"
        name = self.lr_scheduler_type or self.lr_scheduler
        hint = "; did you mean constant_with_warmup?" if name == "constant" else ""
        has_warmup = not self.lr_scheduler_type and name not in WITHOUT_WARMUP
        given = {word.split("=", 1)[0] for word in self.lr_scheduler_args}
        lowest = self.lr_scheduler_min_lr_ratio is not None or given & {"min_lr", "min_lr_rate"}
        refuse(
            (
                name in NEEDS_LOWEST and not lowest,
                "lr_scheduler",
                f"{name} needs --lr_scheduler_min_lr_ratio",
            ),
            (
                name == "piecewise_constant" and "step_rules" not in given,
                "lr_scheduler",
                "piecewise_constant needs --lr_scheduler_args \"step_rules='1:100,0.1'\""
                " (1 up to step 100, then 0.1)",
            ),
        )
        # Not among the settings without effect: a warm-up that was meant would change the result.
        why = f"is not used by {flag} {name}, as in sd-scripts{hint}"
        warn_when((self.lr_warmup_steps and not has_warmup, "lr_warmup_steps", why))
        self._warn_of_unread(f"{flag} {name}", READS.get(name, ()))

    def _check_values(self) -> None:
        ratio = self.lr_scheduler_min_lr_ratio
        refuse(
            *below(1, self, "lr_scheduler_num_cycles"),
            (self.lr_scheduler_power <= 0, "lr_scheduler_power", "must be above 0"),
            *below(1, self, "lr_scheduler_timescale"),
            (ratio is not None and not 0 <= ratio <= 1, "lr_scheduler_min_lr_ratio", "must be 0 to 1"),
            *not_pairs("lr_scheduler_args", self.lr_scheduler_args),
        )

    def _warn_of_unread(self, chosen: str, read: tuple[str, ...]) -> None:
        given = {
            "lr_decay_steps": self.lr_decay_steps,
            "lr_scheduler_num_cycles": self.lr_scheduler_num_cycles != 1,
            "lr_scheduler_power": self.lr_scheduler_power != 1,
            "lr_scheduler_timescale": self.lr_scheduler_timescale,
            "lr_scheduler_min_lr_ratio": self.lr_scheduler_min_lr_ratio,
            "lr_scheduler": self.lr_scheduler_type and self.lr_scheduler != "constant",
        }
        warn_when(
            *(
                (value and name not in read, name, f"has no effect with {chosen}")
                for name, value in given.items()
            ),
            (
                "lr_decay_steps" in read and not self.lr_decay_steps,
                "lr_scheduler",
                "warmup_stable_decay does not decay without --lr_decay_steps",
            ),
        )


assert set(READS) < set(get_args(ScheduleName))
