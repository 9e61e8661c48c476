"""How several processes train together."""

from __future__ import annotations

from dataclasses import dataclass

from library.options.fields import below, option, refuse


@dataclass(frozen=True)
class ProcessOptions:
    """Several processes."""

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

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [name for name in vars(self) if getattr(self, name)]
