"""Training 16-bit weights: a step is computed in float32 and rounded stochastically.

Adjacent bfloat16 numbers are up to 0.8 % apart: rounding to nearest loses every smaller update. Stochastic
rounding goes to either neighbour, to the nearer one more often, so that the mean is the exact value (Gupta et
al. 2015, https://arxiv.org/abs/1502.02551).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from library.param_groups import ParamGroup
from library.problems import UserError
from library.randomness import derive_seed

CHUNK = 2**26  # weights held in float32 at once: 256 MiB, and as much for their gradients
# Packages whose optimizers step each tensor independently: with these a step can go chunk by chunk.
_TENSOR_BY_TENSOR = ("torch.optim.", "bitsandbytes.", "lion_pytorch.", "transformers.")


def round_stochastically(values: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """float32 values, stochastically rounded to dtype (bfloat16 or float16): each becomes one of its two
    neighbours there, with the value itself as the mean.
    """
    if dtype == torch.float16:
        return _round_float16(values, generator)
    # bfloat16 is the upper 16 bits of float32.
    return torch.where(values.isfinite(), _truncate(values, 16, generator), values).to(dtype)


def _round_float16(values: Tensor, generator: torch.Generator) -> Tensor:
    """Below 2^-14 float16 is subnormal: its numbers are evenly spaced, 2^-24 apart."""
    normal = _truncate(values, 13, generator)  # float16 has 10 of float32's 23 bits of mantissa
    small = (values * 2**24 + torch.rand(values.shape, generator=generator, device=values.device)).floor()
    rounded = torch.where(values.abs() < 2**-14, small / 2**24, normal)
    return torch.where(values.isfinite(), rounded, values).to(torch.float16)


def _truncate(values: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """float32 values with their last bits set to 0, after a random number below 2^bits was added."""
    device = values.device
    chance = torch.randint(2**bits, values.shape, dtype=torch.int32, generator=generator, device=device)
    return ((values.view(torch.int32) + chance) & -(2**bits)).view(torch.float32)


class RoundedOptimizer(torch.optim.Optimizer):
    """Any optimizer over 16-bit parameters: `inner` works on float32 copies that exist only during a step.

    Its state belongs to float32 parameters, so that small numbers in it are not lost either. Gradients are
    cast to float32 before they are unscaled and clipped.
    """

    # It makes torch.amp.GradScaler hand `grad_scale` and `found_inf` to `step` instead of unscaling the
    # gradients, which it refuses to do in float16.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        make: Callable[[Sequence[ParamGroup]], torch.optim.Optimizer],
        *,
        seed: int,
        max_grad_norm: float = 0.0,
    ) -> None:
        """make: makes the inner optimizer for parameter groups.
        seed: of the rounding.
        max_grad_norm: 0 does not clip.

        Raises UserError for an optimizer that changes weights between steps (a schedule-free one).
        """
        copies = {p: nn.Parameter(_placeholder(p)) for group in groups for p in group["params"]}
        self.inner = make([_with_params(group, [copies[p] for p in group["params"]]) for group in groups])
        if hasattr(self.inner, "eval"):
            cause = f"does not work with {type(self.inner).__name__}, which moves weights between steps"
            raise UserError.of("--full_bf16 or --full_fp16", cause, "choose another --optimizer_type")
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.copies, self.seed, self.max_grad_norm, self.steps = copies, seed, max_grad_norm, 0
        self.numbers = {parameter: number for number, parameter in enumerate(copies)}
        self._pull_settings()

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes no closures
        """Take a step on the gradients; skip it when a scaled gradient overflowed."""
        overflow = getattr(self, "found_inf", None)
        if self.step_part(torch.tensor(False) if overflow is None else overflow):
            self.count_step()

    @torch.no_grad()
    def step_part(self, is_bad: Tensor) -> bool:
        """Step the parameters that the groups hold now. It does not count: several parts may make up a step.

        Returns whether the step was taken; it is skipped when gradients are bad.
        """
        if is_bad:
            return False
        self._push_settings()
        factor = self._factor()
        for chunk in self._chunks():
            for parameter in chunk:
                assert parameter.grad is not None
                copy = self.copies[parameter]
                copy.data = parameter.detach().float()
                copy.grad = parameter.grad.float().mul_(factor)
            self.inner.step()
            for parameter in chunk:
                self._round_back(parameter)
        self._pull_settings()
        return True

    def count_step(self) -> None:
        """Count a whole step: the next one is rounded by other draws."""
        self.steps += 1

    def copies_of(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """The float32 copies of these parameters, which `inner` works on."""
        return [self.copies[parameter] for parameter in parameters]

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict["inner"])
        self.steps = state_dict["steps"]
        self._pull_settings()

    def _chunks(self) -> Iterator[list[nn.Parameter]]:
        """Parameters with gradients, in chunks; all at once for optimizers that need all together."""
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
        """What each gradient is multiplied by to unscale and clip it."""
        scale = getattr(self, "grad_scale", None)
        factor = 1.0 if scale is None else 1 / scale
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not (self.max_grad_norm and gradients):
            return factor
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
        norm = torch.linalg.vector_norm(torch.stack(norms)) * factor
        return factor * (self.max_grad_norm / (norm + 1e-6)).clamp(max=1)

    def _round_back(self, parameter: nn.Parameter) -> None:
        """Every process draws the same numbers, in whatever order parameters are stepped."""
        key = derive_seed(self.seed, "rounding", self.steps + 1, self.numbers[parameter])
        generator, copy = torch.Generator(parameter.device).manual_seed(key), self.copies[parameter]
        parameter.copy_(round_stochastically(copy.data, parameter.dtype, generator))
        copy.data, copy.grad = _placeholder(parameter), None

    def _push_settings(self) -> None:
        """Hand what the loop set in the groups, such as rates, to `inner`."""
        for own, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner.update({key: value for key, value in own.items() if key != "params"})

    def _pull_settings(self) -> None:
        """Take over what `inner` changed in its groups."""
        for own, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            own.update({key: value for key, value in inner.items() if key != "params"})


def _with_params(group: ParamGroup, params: list[nn.Parameter]) -> ParamGroup:
    """A copy of a group with other parameters."""
    changed = group.copy()
    changed["params"] = params
    return changed


def _placeholder(parameter: Tensor) -> Tensor:
    """A float32 tensor in a parameter's shape that takes no memory."""
    return torch.zeros((), device=parameter.device).expand(parameter.shape)


def wrapped_optimizers(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizer and, for 16-bit weights, the one inside it; the last is always the package's own."""
    return [optimizer, optimizer.inner] if isinstance(optimizer, RoundedOptimizer) else [optimizer]


def parameters_of(
    level: torch.optim.Optimizer, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
) -> list[nn.Parameter]:
    """These parameters as one of an optimizer's `wrapped_optimizers` holds them: `inner` has the copies."""
    if isinstance(optimizer, RoundedOptimizer) and level is optimizer.inner:
        return optimizer.copies_of(parameters)
    return parameters
