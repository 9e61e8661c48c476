"""Adafactor (Shazeer & Stern 2018, https://arxiv.org/abs/1804.04235) over many tensors at once.

It computes what transformers' Adafactor does, up to rounding, and keeps the same state. Parameters of a shape
are stacked, so that a step takes a few operators per shape instead of forty per parameter. Nothing in it
reads the device: a step with bad gradients is skipped there, as by torch's fused optimizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

STACKED = 2**25  # values that are stacked at once: 128 MiB
TINY = 1e-37  # less than any average of squared gradients

Group = dict[str, Any]
State = dict[str, Tensor]


class Adafactor(torch.optim.Optimizer):
    """transformers.optimization.Adafactor, with its arguments, errors and state.

    What its state has for a parameter, in float32 on its device:

    step: how many steps it took, a scalar.
    RMS: the root mean square of its values before the last one, a scalar; 0 without scale_parameter.
    exp_avg_sq_row, exp_avg_sq_col: averages of squared gradients' means over the last dimension and over the
        one before it. exp_avg_sq: that of the squares, for vectors.
    exp_avg: the average of steps, with beta1.
    """

    # torch.amp.GradScaler hands it `grad_scale` and `found_inf` instead of looking at gradients first.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
    ) -> None:
        """lr: the rate; None with relative_step, which computes it.
        eps: what squared gradients and the size of parameters are at least.
        clip_threshold: the most that the root mean square of a step before its rate is.
        decay_rate: the weight of a step in the averages is step ** decay_rate.
        beta1: of an average of steps; None keeps none.

        Raises ValueError for arguments that contradict each other.
        """
        if lr is not None and relative_step:
            raise ValueError("Cannot combine manual `lr` and `relative_step=True` options")
        if warmup_init and not relative_step:
            raise ValueError("`warmup_init=True` requires `relative_step=True`")
        settings = {
            "lr": lr,
            "eps": eps,
            "clip_threshold": clip_threshold,
            "decay_rate": decay_rate,
            "beta1": beta1,
            "weight_decay": weight_decay,
            "scale_parameter": scale_parameter,
            "relative_step": relative_step,
            "warmup_init": warmup_init,
        }
        super().__init__(params, settings)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state, also one of transformers' Adafactor, which has numbers instead of scalars."""
        super().__setstate__(state)
        for parameter, kept in self.state.items():
            for key in ("step", "RMS"):
                number = torch.as_tensor(kept[key], dtype=torch.float32)
                kept[key] = number.to(parameter.device, copy=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes no closures
        """Take a step on the gradients. Where `found_inf` says that they are bad, nothing changes."""
        found: Tensor | None = getattr(self, "found_inf", None)
        scale: Tensor | None = getattr(self, "grad_scale", None)
        is_bad = None if found is None else found.bool()
        for group in self.param_groups:
            for stacks in self._batches(group):
                _step(group, stacks, is_bad, scale)

    def rate_of(self, parameter: nn.Parameter) -> Tensor | None:
        """The rate of a parameter's last step, a scalar on its device; None before its first."""
        for group in self.param_groups:
            if any(parameter is one for one in group["params"]) and (state := self.state.get(parameter)):
                return _rates(group, state["step"], state["RMS"] if group["scale_parameter"] else None)
        return None

    def _batches(self, group: Group) -> Iterator[list[_Stack]]:
        """A group's parameters with gradients, stacked by shape; some stacks at a time."""
        by_shape: dict[tuple[torch.Size, torch.device], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault((parameter.shape, parameter.device), []).append(parameter)
        batch: list[_Stack] = []
        size = 0
        for (shape, device), same in by_shape.items():
            each = max(1, STACKED // max(1, shape.numel()))
            for start in range(0, len(same), each):
                some = same[start : start + each]
                if batch and (
                    size + len(some) * shape.numel() > STACKED or device != batch[0].parameters[0].device
                ):
                    yield batch
                    batch, size = [], 0
                batch.append(_Stack(some, [self._state_of(one, group) for one in some]))
                size += len(some) * shape.numel()
        if batch:
            yield batch

    def _state_of(self, parameter: nn.Parameter, group: Group) -> State:
        state, shape = self.state[parameter], parameter.shape
        if not state:
            zero = torch.zeros((), device=parameter.device)
            state["step"], state["RMS"] = zero, zero.clone()
            if group["beta1"] is not None:
                state["exp_avg"] = zero.new_zeros(shape)
            if len(shape) >= 2:
                state["exp_avg_sq_row"] = zero.new_zeros(shape[:-1])
                state["exp_avg_sq_col"] = zero.new_zeros(shape[:-2] + shape[-1:])
            else:
                state["exp_avg_sq"] = zero.new_zeros(shape)
        return state


@dataclass(frozen=True)
class _Stack:
    """Parameters of one shape, and their states."""

    parameters: list[nn.Parameter]
    states: list[State]

    @property
    def is_factored(self) -> bool:
        return self.parameters[0].dim() >= 2

    def kept(self, key: str) -> list[Tensor]:
        return [state[key] for state in self.states]

    def gradient(self, is_bad: Tensor | None, scale: Tensor | None) -> Tensor:
        """The gradients, 0 where they are bad: (s, *shape) float32, in memory of its own."""
        found = [p.grad.float() for p in self.parameters if p.grad is not None]
        if is_bad is None:
            stacked = torch.stack(found)
        elif len(found) == 1:
            stacked = found[0].unsqueeze(0).masked_fill(is_bad, 0).contiguous()
        else:
            stacked = torch.stack(found).masked_fill_(is_bad, 0)
        return stacked if scale is None else stacked.div_(scale)


def _step(group: Group, stacks: list[_Stack], is_bad: Tensor | None, scale: Tensor | None) -> None:
    """A step of the k parameters in some stacks."""
    parameters: list[Tensor] = [parameter for stack in stacks for parameter in stack.parameters]
    states = [state for stack in stacks for state in stack.states]
    counts = [len(stack.parameters) for stack in stacks]
    steps = _count(states, is_bad)  # (k,)
    # This step's share in the averages, 1 - beta_2t of section 7.2. Each by itself: vectorized powers differ
    # in the last bit by their place, and steps within the backward pass should equal those after it.
    share = torch.stack(torch._foreach_pow([state["step"] for state in states], group["decay_rate"]))
    sizes = _measure(parameters, states, is_bad) if group["scale_parameter"] else None
    rates = _rates(group, steps, sizes)
    if is_bad is not None:
        share, rates = share.masked_fill_(is_bad, 0), rates.masked_fill(is_bad, 0)
    stacked = _updates(stacks, share.split(counts), group["eps"][0], is_bad, scale)
    updates = [update for one in stacked for update in one.unbind()]
    # Section 6: a step's root mean square is clipped to a threshold.
    factors = rates / _root_mean_squares(updates).div_(group["clip_threshold"]).clamp_(min=1)
    for one, factor in zip(stacked, factors.split(counts), strict=True):
        one.mul_(_beside(factor, one))
    if group["beta1"] is not None:
        updates = _average(updates, states, group["beta1"], is_bad)
    if group["weight_decay"]:
        torch._foreach_mul_(parameters, (1 - group["weight_decay"] * rates).unbind())
    torch._foreach_sub_(parameters, updates)


def _count(states: list[State], is_bad: Tensor | None) -> Tensor:
    """Count a step that is not bad. Returns the numbers of steps, (k,)."""
    steps = [state["step"] for state in states]
    if is_bad is None:
        torch._foreach_add_(steps, 1)
    else:
        torch._foreach_add_(steps, [(~is_bad).float()] * len(steps))
    return torch.stack(steps)


def _measure(parameters: list[Tensor], states: list[State], is_bad: Tensor | None) -> Tensor:
    """The root mean square of each parameter, (k,). The states keep it, unless the step is bad."""
    sizes, kept = _root_mean_squares(parameters), [state["RMS"] for state in states]
    if is_bad is not None:
        sizes = torch.where(is_bad, torch.stack(kept), sizes)
    torch._foreach_copy_(kept, sizes.unbind())
    return sizes


def _root_mean_squares(tensors: list[Tensor]) -> Tensor:
    """(k,) float32."""
    norms = torch._foreach_norm(tensors, 2, dtype=torch.float32)
    torch._foreach_div_(norms, [max(1, tensor.numel()) ** 0.5 for tensor in tensors])
    return torch.stack(norms)


def _rates(group: Group, steps: Tensor, sizes: Tensor | None) -> Tensor:
    """The rates of parameters that took so many steps and have these root mean squares, which count with
    scale_parameter; of any shape.
    """
    if not group["relative_step"]:
        rates = torch.full_like(steps, group["lr"])
    elif group["warmup_init"]:
        rates = torch.minimum(1e-6 * steps, steps.rsqrt())
    else:
        rates = steps.rsqrt().clamp_(max=1e-2)
    return rates if sizes is None else rates.mul_(sizes.clamp(min=group["eps"][1]))


def _updates(
    stacks: list[_Stack], shares: Sequence[Tensor], eps: float, is_bad: Tensor | None, scale: Tensor | None
) -> list[Tensor]:
    """Each stack's gradients over the root of their averaged squares: (s, *shape)."""
    gradients = [stack.gradient(is_bad, scale) for stack in stacks]
    means = _mean_squares(stacks, gradients, eps)
    averages = [tuple(torch.stack(kept) for kept in _averages(stack)) for stack in stacks]
    for own, new, share in zip(averages, means, shares, strict=True):
        for average, mean in zip(own, new, strict=True):
            average.lerp_(mean, _beside(share, mean))
    kept = [tensor for stack in stacks for tensors in _averages(stack) for tensor in tensors]
    torch._foreach_copy_(kept, [one for own in averages for average in own for one in average.unbind()])
    # Before the first good step they are 0, and a bad one's update must not be 0 / 0.
    torch._foreach_clamp_min_([average for own in averages for average in own], TINY)
    return [_scaled(*pair) for pair in zip(gradients, averages, strict=True)]


def _averages(stack: _Stack) -> tuple[list[Tensor], ...]:
    """What the states of a stack keep of squared gradients: of rows and columns, or of the whole."""
    if stack.is_factored:
        return stack.kept("exp_avg_sq_row"), stack.kept("exp_avg_sq_col")
    return (stack.kept("exp_avg_sq"),)


def _mean_squares(stacks: list[_Stack], gradients: list[Tensor], eps: float) -> list[tuple[Tensor, ...]]:
    """What the averages take in: each stack's squared gradients plus eps, as means of rows (s, ..., rows) and
    of columns (s, ..., columns), or whole for vectors.
    """
    found: list[tuple[Tensor, ...]] = []
    norms: list[Tensor] = []
    counts: list[float] = []
    for stack, gradient in zip(stacks, gradients, strict=True):
        if stack.is_factored:
            pair = tuple(torch.linalg.vector_norm(gradient, dim=dim) for dim in (-1, -2))
            norms += pair
            counts += (gradient.shape[-1], gradient.shape[-2])
            found.append(pair)
        else:
            found.append((gradient.square(),))
    if norms:
        torch._foreach_mul_(norms, norms)
        torch._foreach_div_(norms, counts)
    torch._foreach_add_([mean for means in found for mean in means], eps)
    return found


def _scaled(gradient: Tensor, averages: tuple[Tensor, ...]) -> Tensor:
    """Algorithm 4: gradients, which are changed, times the inverse root of their averaged squares."""
    if len(averages) == 1:
        return gradient.mul_(averages[0].rsqrt())
    rows, columns = averages
    by_row = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt_()
    return gradient.mul_(by_row.unsqueeze(-1)).mul_(columns.rsqrt().unsqueeze(-2))


def _average(updates: list[Tensor], states: list[State], beta: float, is_bad: Tensor | None) -> list[Tensor]:
    """The averages of steps, which the states keep; 0 for a bad step."""
    averages = [state["exp_avg"] for state in states]
    if is_bad is None:
        torch._foreach_lerp_(averages, updates, 1 - beta)
        return averages
    is_good = (~is_bad).float()
    torch._foreach_sub_(updates, averages)
    torch._foreach_mul_(updates, (1 - beta) * is_good)
    torch._foreach_add_(averages, updates)
    return list(torch._foreach_mul(averages, is_good))


def _beside(values: Tensor, stacked: Tensor) -> Tensor:
    """A value for each tensor of a stack, (s,), in a shape that multiplies it."""
    return values.view(-1, *[1] * (stacked.dim() - 1))
