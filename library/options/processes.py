"""How several processes train together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from library.options.fields import below, option, refuse, warn_when

Sharding = Literal["full", "grads"]


@dataclass(frozen=True)
class ProcessOptions:
    """Several processes."""

    shard: Sharding | None = option(
        None,
        "share out among the processes what each would have whole: weights, gradients and the optimizer's "
        "state (full), or the same with weights kept together during a step, which takes memory and saves "
        "exchanges (grads)",
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
        refuse(*below(1, self, "ddp_timeout"))
        of_ddp = {name: getattr(self, name) for name in ("ddp_gradient_as_bucket_view", "ddp_static_graph")}
        warn_when(
            *(
                (asked and self.shard is not None, name, "has no effect with --shard")
                for name, asked in of_ddp.items()
            )
        )

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [name for name in vars(self) if getattr(self, name)]
