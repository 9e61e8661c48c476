"""How several processes train together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from library.options.fields import below, option, refuse, warn_when
from library.options.launched_sharding import asked_of_fsdp
from library.problems import warn

Sharding = Literal["full", "grads"]
# What DeepSpeed's stages share out; 0 is nothing.
_STAGES: dict[int, Sharding | None] = {0: None, 2: "grads", 3: "full"}


@dataclass(frozen=True)
class ProcessOptions:
    """Several processes."""

    shard: Sharding | None = option(
        None,
        "share out among the processes what each would have whole: weights, gradients and the optimizer's "
        "state (full), or the same with weights kept together during a step, which takes memory and saves "
        "exchanges (grads)",
    )
    deepspeed: bool = option(
        False, "as in sd-scripts, but DeepSpeed is not used: the same as --shard, of the kind of --zero_stage"
    )
    zero_stage: int = option(
        2, "2: --deepspeed is --shard grads; 3: it is --shard full; 0: it is nothing", metavar="N"
    )
    ddp_timeout: int | None = option(
        None,
        "minutes after which processes that wait for each other give up (default: torch's)",
        metavar="N",
        zero_unset=True,
    )
    ddp_gradient_as_bucket_view: bool = option(
        False, "gradients share memory with what the processes exchange: one copy less"
    )
    ddp_static_graph: bool = option(False, "promise that each step trains the same weights: less to look up")

    def __post_init__(self) -> None:
        refuse(
            *below(1, self, "ddp_timeout"),
            (
                self.deepspeed and self.zero_stage not in _STAGES,
                "zero_stage",
                "is not there; give 2, which takes less memory than 1, or 3",
            ),
        )
        if self.shard is None:
            self._take_from_others()
        of_ddp = {name: getattr(self, name) for name in ("ddp_gradient_as_bucket_view", "ddp_static_graph")}
        warn_when(
            (
                self.zero_stage != 2 and not self.deepspeed,
                "zero_stage",
                "has no effect without --deepspeed",
            ),
            *(
                (asked and self.shard is not None, name, "has no effect with --shard")
                for name, asked in of_ddp.items()
            ),
        )

    def _take_from_others(self) -> None:
        """What DeepSpeed's options or accelerate's FSDP mean by --shard."""
        asked = asked_of_fsdp(os.environ)
        shard, where = asked if asked is not None else (None, "")
        if self.deepspeed:
            shard, where = _STAGES[self.zero_stage], f"--deepspeed with --zero_stage {self.zero_stage}"
        if shard is not None:
            warn(f"{where} is taken as --shard {shard}, which means the same")
            object.__setattr__(self, "shard", shard)

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [
            name for name in vars(self) if getattr(self, name) and name not in ("deepspeed", "zero_stage")
        ]
