"""Training weights of 16 bits: a step is computed in float32 and rounded back by chance.

Neighbours of a bfloat16 weight are up to 0.8 % away: rounded to the nearest, every smaller change is lost. A
number between two neighbours goes to either of them, to the nearer one more often, so that what is lost and
gained evens out (stochastic rounding: Gupta et al. 2015, https://arxiv.org/abs/1502.02551).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from library.problems import UserError
from library.randomness import derive_seed
from library.training.tasks.components import ParamGroup

CHUNK = 2**26  # weights that are in float32 at once: 256 MiB, and their gradients as much
# Optimizers whose step on a tensor needs no other tensor: with these a step goes chunk by chunk.
_TENSOR_BY_TENSOR = ("torch.optim.", "bitsandbytes.", "lion_pytorch.", "transformers.")


def round_by_chance(values: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """float32 values in dtype (bfloat16 or float16), each rounded to one of its two neighbours there, so that
    the mean is the value.
    """
    if dtype == torch.float16:
        return _round_float16(values, generator)
    return torch.where(values.isfinite(), _cut(values, 16, generator), values).to(dtype)


def _round_float16(values: Tensor, generator: torch.Generator) -> Tensor:
    """Below 2^-14 float16's numbers are evenly spaced, 2^-24 apart."""
    normal = _cut(values, 13, generator)
    small = (values * 2**24 + torch.rand(values.shape, generator=generator, device=values.device)).floor()
    rounded = torch.where(values.abs() < 2**-14, small / 2**24, normal)
    return torch.where(values.isfinite(), rounded, values).to(torch.float16)


def _cut(values: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """The last bits of float32 numbers set to 0, after a random number below 2^bits was added to them."""
    device = values.device
    chance = torch.randint(2**bits, values.shape, dtype=torch.int32, generator=generator, device=device)
    return ((values.view(torch.int32) + chance) & -(2**bits)).view(torch.float32)


class Rounded(torch.optim.Optimizer):
    """Any optimizer over 16-bit parameters: `inner` works on float32 copies that exist during a step only.

    Its state is of float32 parameters, so its smallest numbers are not lost either. Gradients are turned into
    float32 before they are divided by a loss scaler's scale, and are clipped there.
    """

    # torch.amp.GradScaler then gives `grad_scale` and `found_inf` to `step` and leaves the gradients alone,
    # which it would refuse to divide in float16.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        make: Callable[[Sequence[ParamGroup]], torch.optim.Optimizer],
        *,
        seed: int,
        max_grad_norm: float = 0.0,
    ) -> None:
        """make: gives the inner optimizer for groups. seed: of the rounding. max_grad_norm: 0 does not clip.

        Raises UserError for an optimizer that cannot work so.
        """
        copies = {p: nn.Parameter(_stand_in(p)) for group in groups for p in group["params"]}
        self.inner = make([_with_params(group, [copies[p] for p in group["params"]]) for group in groups])
        if hasattr(self.inner, "eval"):
            cause = f"does not work with {type(self.inner).__name__}, which moves weights between steps"
            raise UserError.of("--full_bf16 or --full_fp16", cause, "choose another --optimizer_type")
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.copies, self.seed, self.max_grad_norm, self.steps = copies, seed, max_grad_norm, 0
        self.numbers = {parameter: number for number, parameter in enumerate(copies)}
        self._follow()

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes no closures
        """One step on the gradients there are; none when a scaled gradient overflowed."""
        overflow = getattr(self, "found_inf", None)
        if self.step_part(torch.tensor(False) if overflow is None else overflow):
            self.count_step()

    @torch.no_grad()
    def step_part(self, is_bad: Tensor) -> bool:
        """A step of the parameters that are in the groups now, which does not count yet: several may make one
        step of the whole. Returns whether it was taken, which it is not when gradients are bad.
        """
        if is_bad:
            return False
        self._lead()
        factor = self._factor()
        for chunk in self._chunks():
            for parameter in chunk:
                assert parameter.grad is not None
                copy = self.copies[parameter]
                copy.data = parameter.detach().float()
                copy.grad = parameter.grad.float().mul_(factor)
            self.inner.step()
            for parameter in chunk:
                self._put_back(parameter)
        self._follow()
        return True

    def count_step(self) -> None:
        """The step is whole: the next one is rounded by other draws."""
        self.steps += 1

    def copies_of(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """The float32 copies that `inner` works on, for these parameters."""
        return [self.copies[parameter] for parameter in parameters]

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict["inner"])
        self.steps = state_dict["steps"]
        self._follow()

    def _chunks(self) -> Iterator[list[nn.Parameter]]:
        """Parameters with gradients; all at once for optimizers that look at all."""
        having = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not type(self.inner).__module__.startswith(_TENSOR_BY_TENSOR):
            yield having
            return
        chunk: list[nn.Parameter] = []
        size = 0
        for parameter in having:
            if chunk and size + parameter.numel() > CHUNK:
                yield chunk
                chunk, size = [], 0
            chunk.append(parameter)
            size += parameter.numel()
        yield chunk

    def _factor(self) -> Tensor | float:
        """What each gradient is multiplied by."""
        scale = getattr(self, "grad_scale", None)
        factor = 1.0 if scale is None else 1 / scale
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not (self.max_grad_norm and gradients):
            return factor
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
        norm = torch.linalg.vector_norm(torch.stack(norms)) * factor
        return factor * (self.max_grad_norm / (norm + 1e-6)).clamp(max=1)

    def _put_back(self, parameter: nn.Parameter) -> None:
        """Every process draws the same, in whatever order parameters are stepped."""
        key = derive_seed(self.seed, "rounding", self.steps + 1, self.numbers[parameter])
        generator, copy = torch.Generator(parameter.device).manual_seed(key), self.copies[parameter]
        parameter.copy_(round_by_chance(copy.data, parameter.dtype, generator))
        copy.data, copy.grad = _stand_in(parameter), None

    def _lead(self) -> None:
        """What the loop set in the groups, such as rates, holds inside."""
        for own, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner.update({key: value for key, value in own.items() if key != "params"})

    def _follow(self) -> None:
        for own, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            own.update({key: value for key, value in inner.items() if key != "params"})


def _with_params(group: ParamGroup, params: list[nn.Parameter]) -> ParamGroup:
    """The group's settings for other parameters."""
    changed = group.copy()
    changed["params"] = params
    return changed


def _stand_in(parameter: Tensor) -> Tensor:
    """Has a parameter's shape in float32 and no memory of its own."""
    return torch.zeros((), device=parameter.device).expand(parameter.shape)


def levels(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizer and, for 16-bit weights, the one inside it: the last is as its package made it."""
    return [optimizer, optimizer.inner] if isinstance(optimizer, Rounded) else [optimizer]


def on_level(
    level: torch.optim.Optimizer, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
) -> list[nn.Parameter]:
    """The parameters as one of an optimizer's `levels` knows them."""
    if isinstance(optimizer, Rounded) and level is optimizer.inner:
        return optimizer.copies_of(parameters)
    return parameters
