"""Weights that every process has whole: the usual case, and what can be asked of weights held in any way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from library.param_groups import ParamGroup
from library.training.optimization.gradients import gradient_norm
from library.training.session import Session

AsResult = Callable[[], AbstractContextManager[None]]


class Weights:
    """The weights of a run, whole in every process. `ShardedWeights` overrides what differs with shares.

    is_sharded: whether each process has a share only.
    casts: whether trained weights come in the type of mixed precision by themselves.
    """

    is_sharded = False
    casts = False

    def __init__(self, session: Session) -> None:
        self.session = session

    def own(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """What this process has of parameters, which is what its optimizer steps."""
        return list(parameters)

    def own_groups(self, groups: Sequence[ParamGroup]) -> list[ParamGroup]:
        """The same for the groups of an optimizer."""
        return list(groups)

    def values_at(self, places: Sequence[tuple[nn.Parameter, Tensor | None]]) -> Tensor:
        """Values of parameters, at numbers of their flat elements (None: all): (n,) float32 on the CPU. All
        processes call it together.
        """
        found = []
        for parameter, chosen in places:
            values = parameter.detach().flatten()
            if chosen is not None:
                values = values[chosen.to(values.device)]
            found.append(values.float().cpu())
        return torch.cat(found)

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The L2 norm of the gradients of parameters that `own` gave: a float32 scalar, equal everywhere."""
        return gradient_norm(parameters)

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Clip their gradients to a norm. Returns the norm before."""
        return self.session.accelerator.clip_grad_norm_(parameters, limit)

    def exchange(self, prepared: nn.Module, *, closes: bool) -> AbstractContextManager[None]:
        """Context manager for the forward and backward pass of a batch; it exchanges gradients.

        closes: whether it is the last batch of a step. Processes exchange gradients once a step.
        """
        return nullcontext() if closes else self.session.accelerator.no_sync(prepared)

    def collect_gradients(self) -> None:
        """Get the gradients of a step ready for the optimizer."""

    def hold(self, optimizer: torch.optim.Optimizer, averages: list[Tensor]) -> None:
        """Say what is held like the weights: an optimizer's state, and averages of what it steps."""

    def as_result(self, own: AsResult) -> AbstractContextManager[None]:
        """Context manager; inside it the weights are those that users get.

        own: the context manager that makes them so in this process.
        """
        return own()

    @contextmanager
    def saving(self, own: AsResult) -> Iterator[bool]:
        """Context manager, entered by all processes together: whether this one writes. Inside it the task's
        tensors are whole. own: as for `as_result`.
        """
        yield self.session.is_main

    def loading(self) -> AbstractContextManager[None]:
        """Context manager; inside it the task takes whole tensors."""
        return nullcontext()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimizer's state dict of whole tensors, inside `saving`."""
        return optimizer.state_dict()

    def placing(self, optimizer: torch.optim.Optimizer) -> Callable[[int, Tensor], Tensor]:
        """(number of a weight, a whole tensor of an optimizer's state for it) -> what this process keeps."""
        return lambda number, value: value

    def averages(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Averages of whole weights, by the numbers of what the optimizer steps, inside `saving`."""
        return dict(values)

    def place_averages(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's averages, from those of whole weights."""
        return dict(values)
