"""Weights that are shared out among the processes, with FSDP2: each process has some rows of every weight.

The optimizer steps ordinary parameters: this process's rows, in the memory of FSDP2's own. So every optimizer
that treats each element by itself works as it does on whole weights, and so do the guard and averages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh

from library.models.deferred import Deferred
from library.options.processes import Sharding
from library.param_groups import ParamGroup
from library.training.optimization.gradients import clip_factor, gradient_norms, gradients_of
from library.training.session import Session
from library.training.sharding.gathering import Gathering, Name
from library.training.sharding.shares import Share, is_shared_out, share_of
from library.training.sharding.units import share_out
from library.training.sharding.whole import AsResult, Weights
from library.training.tasks.task import Task


class ShardedWeights(Weights):
    """Weights of which every process has a share.

    shares: of every weight that is shared out, trained or not, in the order of the task.
    """

    is_sharded = True

    def __init__(self, session: Session, task: Task, how: Sharding) -> None:
        """Move the task to the run's device: shares of its model, and whatever is not shared out."""
        super().__init__(session)
        self.task, self.how = task, how
        self.rank, self.processes = session.accelerator.process_index, session.accelerator.num_processes
        mesh = init_device_mesh(session.device.type, (self.processes,))
        self.roots = share_out(task, mesh, session.frozen_dtype)
        task.to(session.device)  # before what follows: FSDP2 may put shares into other memory
        weights = [parameter for parameter in task.parameters() if is_shared_out(parameter)]
        self.shares = [share_of(weight, self.rank, self.processes) for weight in weights]
        self._by_weight = {id(share.weight): share for share in self.shares}
        self.casts = any(share.weight.requires_grad for share in self.shares)
        self._numbers = {id(share.own): number for number, share in enumerate(self.shares)}
        self._gathering = Gathering(session, self._look_up)
        self._optimizer: torch.optim.Optimizer | None = None
        self._averages: list[Tensor] = []

    def hold(self, optimizer: torch.optim.Optimizer, averages: list[Tensor]) -> None:
        self._optimizer, self._averages = optimizer, averages

    def own(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        found = ((self._by_weight.get(id(parameter)), parameter) for parameter in parameters)
        return [parameter if share is None else share.own for share, parameter in found]

    def own_groups(self, groups: Sequence[ParamGroup]) -> list[ParamGroup]:
        return [ParamGroup(**{**group, "params": self.own(group["params"])}) for group in groups]

    # What processes exchange in a step.

    def values_at(self, places: Sequence[tuple[nn.Parameter, Tensor | None]]) -> Tensor:
        found = []
        for parameter, chosen in places:
            share = self._by_weight.get(id(parameter))
            if share is None:  # whole everywhere: the first process tells of it
                values = super().values_at([(parameter, chosen)])
                found.append(values if self.rank == 0 else torch.zeros_like(values))
                continue
            numbers = torch.arange(parameter.numel()) if chosen is None else chosen
            row = share.shape[1:].numel()
            inside = numbers - share.first * row
            is_here = (inside >= 0) & (inside < share.own.numel())
            values = torch.zeros(len(numbers))
            own = share.own.detach().flatten()
            values[is_here] = own[inside[is_here].to(own.device)].float().cpu()
            found.append(values)
        values = torch.cat(found)
        distributed.all_reduce(values, group=self.session.cpu_group())
        return values

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        shared = [parameter for parameter in parameters if id(parameter) in self._numbers]
        whole = [parameter for parameter in parameters if id(parameter) not in self._numbers]
        squares = self._square(shared)
        distributed.all_reduce(squares)
        return (squares + self._square(whole)).sqrt()

    def _square(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        gradients = gradients_of(parameters)
        if not gradients:
            return torch.zeros((), device=self.session.device)
        return gradient_norms(gradients).square().sum()

    @torch.no_grad()
    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        norm = self.norm(parameters)
        if gradients := gradients_of(parameters):
            torch._foreach_mul_(gradients, clip_factor(norm, limit))
        return norm

    @contextmanager
    def exchange(self, prepared: nn.Module, *, closes: bool) -> Iterator[None]:
        """Gradients are exchanged in each batch: kept for later, they would be whole."""
        keeps = self.how == "grads"
        if keeps:  # only here: weights that anything else leaves together would be old ones in the next step
            self._drop_after_forward(False)
        with self.session.accelerator.autocast():
            yield
        if keeps:
            self._drop_after_forward(True)

    def _drop_after_forward(self, drops: bool) -> None:
        for root in self.roots:
            root.set_reshard_after_forward(drops)

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Hand each share its gradient, and average those of weights that are whole."""
        for share in self.shares:
            if share.weight.grad is not None:
                share.own.grad, share.weight.grad = share.weight.grad.to_local(), None  # type: ignore[attr-defined]  # a DTensor
        trained = (p for p in self.task.parameters() if p.requires_grad and not is_shared_out(p))
        if whole := gradients_of(trained):
            flat = torch.cat([gradient.float().flatten() for gradient in whole])
            distributed.all_reduce(flat)
            flat /= self.processes
            parts = flat.split([gradient.numel() for gradient in whole])
            views = [part.view(gradient.shape) for part, gradient in zip(parts, whole, strict=True)]
            torch._foreach_copy_(whole, views)

    # Saving and loading.

    def as_result(self, own: AsResult) -> AbstractContextManager[None]:
        return self._gathering.everywhere(own)

    @contextmanager
    def saving(self, own: AsResult) -> Iterator[bool]:
        with self._gathering.open(own) as writes:
            if not writes:
                yield False
                return
            with self._in_place([self._deferred(number) for number in range(len(self.shares))]):
                yield True

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Every process by itself: it takes its rows of what is copied into the whole weights."""
        with self._in_place([self._accepting(share) for share in self.shares]):
            yield

    @contextmanager
    def _in_place(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        by_weight = {id(share.weight): tensor for share, tensor in zip(self.shares, tensors, strict=True)}
        places: list[tuple[dict[str, Any], str, nn.Parameter | None]] = [
            (owner._parameters, name, parameter)
            for owner in self.task.modules()
            for name, parameter in owner._parameters.items()
            if id(parameter) in by_weight
        ]
        for held, name, parameter in places:
            held[name] = by_weight[id(parameter)]
        try:
            yield
        finally:
            for held, name, parameter in places:
                held[name] = parameter

    def _deferred(self, number: int) -> Deferred:
        share = self.shares[number]
        needs = share.weight.requires_grad
        return self._gathering.deferred(("weight", number), share, share.own, requires_grad=needs)

    def _accepting(self, share: Share) -> Deferred:
        outline = torch.empty(share.shape, dtype=share.own.dtype, device="meta")

        @torch.no_grad()
        def accept(values: Tensor) -> None:
            share.own.copy_(share.of(values))

        return Deferred(outline, _has_no_values, accept, requires_grad=share.weight.requires_grad)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        state = optimizer.state_dict()
        for number, share in self._stepped(optimizer).items():
            kept = state["state"].get(number, {})
            state["state"][number] = {
                key: self._gathering.deferred(("state", number, key), share, value)
                if _is_like(value, share.own)
                else value
                for key, value in kept.items()
            }
        return state

    def placing(self, optimizer: torch.optim.Optimizer) -> Callable[[int, Tensor], Tensor]:
        shares = self._stepped(optimizer)

        def place(number: int, value: Tensor) -> Tensor:
            share = shares.get(number)
            is_like = share is not None and value.dim() > 0 and value.shape == share.shape
            return share.of(value).clone() if share is not None and is_like else value

        return place

    def averages(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = dict(values)
        for name, number in self._averaged(values).items():
            share = self.shares[number]
            found[name] = self._gathering.deferred(("average", name), share, values[name])
        return found

    def place_averages(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        numbers = self._averaged(values)
        return {
            name: self.shares[numbers[name]].of(value).clone() if name in numbers else value
            for name, value in values.items()
        }

    def _stepped(self, optimizer: torch.optim.Optimizer) -> dict[int, Share]:
        """The shares that an optimizer steps, by the numbers in its state."""
        stepped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        places = ((place, self._numbers.get(id(own))) for place, own in enumerate(stepped))
        return {place: self.shares[number] for place, number in places if number is not None}

    def _averaged(self, names: Iterable[str]) -> dict[str, int]:
        """The numbers of the shares that averages are of, by the averages' names."""
        optimizer = self._optimizer
        assert optimizer is not None
        stepped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        places = ((name, self._numbers.get(id(stepped[int(name)]))) for name in names if name.isdecimal())
        return {name: number for name, number in places if number is not None}

    def _look_up(self, name: Name) -> tuple[Share, Tensor]:
        kind, place, *rest = name
        if kind == "weight":
            share = self.shares[int(place)]
            return share, share.own
        assert self._optimizer is not None
        if kind == "average":
            return self.shares[self._averaged([str(place)])[str(place)]], self._averages[int(place)]
        share = self._stepped(self._optimizer)[int(place)]
        return share, self._optimizer.state[share.own][rest[0]]


def _is_like(value: object, own: Tensor) -> bool:
    """Whether what an optimizer keeps has a value for each of a weight."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == own.shape


def _has_no_values() -> Tensor:
    raise AssertionError("weights that are being loaded are not read")
