"""Training 16-bit weights: a step is computed in float32 and rounded stochastically.

Adjacent bfloat16 numbers are up to 0.8 % apart: rounding to nearest loses every smaller update. Stochastic
rounding goes to either neighbour, to the nearer one more often, so that the mean is the exact value (Gupta et
al. 2015, https://arxiv.org/abs/1502.02551).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from library.param_groups import ParamGroup
from library.problems import UserError
from library.randomness import derive_seed
from library.training.optimization.flat import flat_copy, places_in
from library.training.optimization.gradients import (
    clip_factor,
    gradient_norm,
    gradients_of,
    is_not_finite,
    with_gradients,
)
from library.training.optimization.part_steps import (
    Part,
    PartSteps,
    joined,
    neighbours,
    parameters_of,
    steps_by_tensor,
)

CHUNK = 2**25  # weights held in float32 at once: 128 MiB, and as much for gradients and for rounding each


@dataclass(frozen=True)
class Among:
    """Where some values stand among others, so that they are rounded by the draws of their places.

    total: how many values there are.
    spans: the first place and the number of neighbours, for each run of them.
    """

    total: int
    spans: Sequence[tuple[int, int]]

    def pick(self, draws: Tensor) -> Tensor:
        """The draws (total,) of these places."""
        return torch.cat([draws.narrow(0, start, count) for start, count in self.spans])


def round_stochastically(
    values: Tensor, dtype: torch.dtype, generator: torch.Generator, among: Among | None = None
) -> Tensor:
    """float32 values (n,), stochastically rounded to dtype (bfloat16 or float16): each becomes one of its two
    neighbours there, with the value itself as the mean.

    among: the places of the values among those that are drawn for; None: they are all.

    Draws for bfloat16 have 15 bits: the mean is exact to 2^-16 of the neighbours' distance, as float32 is.
    """
    if dtype == torch.float16:
        return _round_float16(values, generator, among)
    # bfloat16 is the upper half of float32; its lower half carries over, or not, when a draw is added.
    device = values.device
    shape = values.shape if among is None else (among.total,)
    draws = torch.randint(2**15, shape, dtype=torch.int16, generator=generator, device=device)
    draws = draws if among is None else among.pick(draws)
    # Where a value is no number nothing is added: a NaN's carry would make it one.
    are_numbers = (~is_not_finite(torch.linalg.vector_norm(values))).int()
    carried = torch.addcmul(values.view(torch.int32), draws, are_numbers, value=2)
    return carried.view(torch.int16)[1::2].contiguous().view(torch.bfloat16)  # little-endian


def _round_float16(values: Tensor, generator: torch.Generator, among: Among | None) -> Tensor:
    """Below 2^-14 float16 is subnormal: its numbers are evenly spaced, 2^-24 apart."""
    normal = _truncate(values, 13, generator, among)  # float16 has 10 of float32's 23 bits of mantissa
    shape = values.shape if among is None else (among.total,)
    chance = torch.rand(shape, generator=generator, device=values.device)
    small = (values * 2**24 + (chance if among is None else among.pick(chance))).floor()
    rounded = torch.where(values.abs() < 2**-14, small / 2**24, normal)
    return torch.where(values.isfinite(), rounded, values).to(torch.float16)


def _truncate(values: Tensor, bits: int, generator: torch.Generator, among: Among | None) -> Tensor:
    """float32 values with their last bits set to 0, after a random number below 2^bits was added."""
    shape = values.shape if among is None else (among.total,)
    chance = torch.randint(2**bits, shape, dtype=torch.int32, generator=generator, device=values.device)
    chance = chance if among is None else among.pick(chance)
    return ((values.view(torch.int32) + chance) & -(2**bits)).view(torch.float32)


class RoundedOptimizer(torch.optim.Optimizer):
    """Any optimizer over 16-bit parameters: `inner` works on float32 copies that exist only during a step.

    Its state belongs to float32 parameters, so that small numbers in it are not lost either. Gradients are
    cast to float32 before they are unscaled and clipped.

    chunks: all parameters in parts of neighbours, each of which is stepped and rounded at once. They are the
        same whether steps are taken within the backward pass or after it, and so are their draws.
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
        parameters = [parameter for group in groups for parameter in group["params"]]
        # A float32 tensor in a parameter's shape that takes no memory.
        self._nothing = {p.device: torch.zeros((), device=p.device) for p in parameters}
        copies = {p: nn.Parameter(self._nothing[p.device].expand(p.shape)) for p in parameters}
        self.inner = make([_with_params(group, [copies[p] for p in group["params"]]) for group in groups])
        if hasattr(self.inner, "eval"):
            cause = f"does not work with {type(self.inner).__name__}, which moves weights between steps"
            raise UserError.of("--full_bf16 or --full_fp16", cause, "choose another --optimizer_type")
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.copies, self.seed, self.max_grad_norm, self._done = copies, seed, max_grad_norm, 0
        self.chunks = neighbours(self.param_groups, CHUNK)
        # Of each parameter: the number of its chunk, and its place in it.
        self._numbers: dict[nn.Parameter, int] = {}
        self._starts: dict[nn.Parameter, int] = {}
        self._sizes: list[int] = []
        for number, chunk in enumerate(self.chunks):
            size = 0
            for parameter in parameters_of(chunk):
                self._numbers[parameter], self._starts[parameter] = number, size
                size += parameter.numel()
            self._sizes.append(size)
        self._inner_steps = PartSteps(self.inner)
        self._pull_settings()

    @property
    def steps(self) -> int:
        """How many steps were taken, without those that were skipped."""
        self._inner_steps.settle()
        return self._done

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes no closures
        """Take a step on the gradients; skip it when they are bad, as `found_inf` says."""
        found: Tensor | None = getattr(self, "found_inf", None)
        is_bad = None if found is None else found.bool()
        factor = self._factor()
        if steps_by_tensor(self.inner):
            for chunk in self.chunks:
                self.step_part(chunk, is_bad, factor)
        elif is_bad is None or not is_bad:  # reads one number, as such an optimizer itself does
            self._step_chunks(self.chunks, None, factor)
        else:
            return
        self.finish()

    @torch.no_grad()
    def step_part(self, part: Part, is_bad: Tensor | None, factors: Tensor | None = None) -> None:
        """Step a chunk, a part of one, or several; see `PartSteps.step_part`. Chunks are rounded by the same
        draws whether they are stepped whole or in parts.

        factors: those of single gradients are for one chunk only.
        """
        for chunk in self._by_chunk(part):
            self._step_chunks([chunk], is_bad, factors)

    def _by_chunk(self, part: Part) -> list[Part]:
        """A part, divided where it crosses chunks."""
        found: dict[int, list[Part]] = {}
        for group, parameters in part:
            for parameter in parameters:
                found.setdefault(self._numbers[parameter], []).append([(group, [parameter])])
        return [joined(parts) for parts in found.values()]

    def finish(self) -> None:
        """End a step: the next one is rounded by other draws."""
        self._inner_steps.finish(self._uncount)
        self._done += 1
        self._pull_settings()

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict["inner"])
        self._done = state_dict["steps"]
        self._pull_settings()

    def _step_chunks(self, chunks: Sequence[Part], is_bad: Tensor | None, factors: Tensor | None) -> None:
        """Step what has gradients in some chunks, all of it in memory in float32 meanwhile."""
        self._inner_steps.begin()
        self._push_settings()
        having = (with_gradients(parameters_of(chunk)) for chunk in chunks)
        loaded = [(self._numbers[own[0]], own, self._load(own)) for own in having if own]
        copies = joined([(number, self._copies_of(own)) for number, own in chunk] for chunk in chunks)
        self._inner_steps.step_part(copies, is_bad, factors)
        for number, parameters, values in loaded:
            self._store(number, parameters, values)

    def _load(self, parameters: list[nn.Parameter]) -> Tensor:
        """Give the copies of parameters their values and gradients. Returns the values, (n,)."""
        values = flat_copy(parameters, dtype=torch.float32)
        gradients = flat_copy(gradients_of(parameters), dtype=torch.float32, like=parameters)
        places = zip(places_in(values, parameters), places_in(gradients, parameters), strict=True)
        for parameter, (value, gradient) in zip(parameters, places, strict=True):
            copy = self.copies[parameter]
            copy.data = value
            copy.grad = gradient
        return values

    def _store(self, number: int, parameters: list[nn.Parameter], values: Tensor) -> None:
        """Round the values of a chunk's parameters, and free the copies. Every process draws the same
        numbers, in whatever order chunks are stepped; a value that did not change is rounded to itself.
        """
        key = derive_seed(self.seed, "rounding", self._done + 1, number)
        generator = torch.Generator(values.device).manual_seed(key)
        among = self._among(number, parameters)
        rounded = round_stochastically(values, parameters[0].dtype, generator, among)
        torch._foreach_copy_([*parameters], places_in(rounded, parameters))
        for parameter in parameters:
            copy = self.copies[parameter]
            copy.data, copy.grad = self._nothing[copy.device].expand(copy.shape), None

    def _among(self, number: int, parameters: Sequence[nn.Parameter]) -> Among | None:
        """Where parameters stand in their chunk; None: they are all of it."""
        total = self._sizes[number]
        if sum(parameter.numel() for parameter in parameters) == total:
            return None
        return Among(total, [(self._starts[parameter], parameter.numel()) for parameter in parameters])

    def _copies_of(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        return [self.copies[parameter] for parameter in parameters]

    def _uncount(self) -> None:
        """Take back a step of which it turned out that it was skipped."""
        self._done -= 1
        self._pull_settings()

    def _factor(self) -> Tensor | None:
        """What each gradient is multiplied by to unscale and clip it: a scalar; None: 1."""
        scale: Tensor | None = getattr(self, "grad_scale", None)
        factor = None if scale is None else 1 / scale
        having = with_gradients(p for group in self.param_groups for p in group["params"])
        if not (self.max_grad_norm and having):
            return factor
        norm = gradient_norm(having)
        if factor is None:
            return clip_factor(norm, self.max_grad_norm)
        return factor * clip_factor(norm * factor, self.max_grad_norm)

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
