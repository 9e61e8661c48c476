"""Optimizer steps within the backward pass, some parameters at a time.

Gradients that are used at once can be freed at once, so that few of them are in memory together. Whether they
are bad is decided on the device, before weights change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from library.models.swapping.blocks import SwappedBlocks
from library.options.optimizer import OptimizerOptions
from library.problems import UserError
from library.training.optimization.gradients import (
    clip_factor,
    gradient_norms,
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
)
from library.training.optimization.rounding import RoundedOptimizer
from library.training.optimization.self_tuning import unwrapped
from library.training.optimization.update import Update


@dataclass
class Unit:
    """Parameters that wait for each other's gradients.

    part: the parameters.
    missing: how many of them still wait for their gradient.
    is_done: whether the unit was stepped in this step.
    """

    part: Part
    missing: int = 0
    is_done: bool = False

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        return parameters_of(self.part)

    @cached_property
    def size(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters)


@dataclass(frozen=True)
class GradientNorms:
    """The norms of a step's gradients before clipping.

    parts: some parameters each, and the norms of their gradients, (k,) float32.
    """

    parts: list[tuple[list[nn.Parameter], Tensor]] = field(default_factory=list)

    def total(self) -> Tensor | None:
        """The norm of all gradients together, a scalar; None without any."""
        return torch.linalg.vector_norm(torch.cat([norms for _, norms in self.parts])) if self.parts else None

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """The norm of each gradient, a scalar."""
        pairs = [zip(parameters, norms.unbind(), strict=True) for parameters, norms in self.parts]
        return {parameter: norm for part in pairs for parameter, norm in part}


class StepsInBackward:
    """Steps parameters as soon as the backward pass has their gradients, and frees these.

    There is still one optimizer: during a step its groups hold only the parameters that are stepped. Its
    state is therefore the same as without this, and a state fits both.

    Small gradients wait until together they are as large as the largest: so few operators step many weights,
    and no more than twice the largest gradient is in memory.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        groups: int | None,
        *,
        max_grad_norm: float = 0.0,
        swapped: SwappedBlocks | None = None,
    ) -> None:
        """swapped: blocks that come and go, whose weights are stepped before they leave; None: all stay.
        groups: into how many parts the parameters are divided, each of which is stepped at once; None:
            each parameter is stepped by itself, or with others if it is small.
        max_grad_norm: what the norm of a part's gradients is clipped to, without parts that of each gradient;
            0 does not clip.
        """
        self.max_grad_norm, self.clips_each = max_grad_norm, groups is None
        self._steps: PartSteps | RoundedOptimizer
        if isinstance(optimizer, RoundedOptimizer):  # its chunks are what it can step, and not small
            self._steps, smallest = optimizer, optimizer.chunks
        else:
            self._steps, smallest = PartSteps(optimizer), neighbours(optimizer.param_groups, 0)
        self.units = [Unit(part) for part in (smallest if groups is None else _split(smallest, groups))]
        waits = groups is None and isinstance(self._steps, PartSteps)
        self._swapped = swapped
        if swapped is not None:
            self.units = [unit for one in self.units for unit in _apart(one, swapped)]
            swapped.leaving.append(self._before_leaving)
        self._by_block: dict[int, list[Unit]] = {}
        for unit in self.units:
            home = None if swapped is None else swapped.home_of(unit.parameters[0])
            if home is not None:
                self._by_block.setdefault(home, []).append(unit)
        self._enough = max(unit.size for unit in self.units) if waits else 0
        self._waiting: list[Unit] = []
        self._waiting_size = 0
        self._norms = GradientNorms()
        for unit in self.units:
            unit.missing = len(unit.parameters)
            for parameter in unit.parameters:
                parameter.register_post_accumulate_grad_hook(lambda _, unit=unit: self._on_gradient(unit))

    def finish(self) -> GradientNorms:
        """End a step: parameters without gradients are stepped too, as an optimizer counts steps for all.

        Returns the norms of the gradients. Those that were stepped together with a bad one were skipped.
        """
        rest = [unit for unit in self.units if not unit.is_done]
        for units in [rest] if self._enough and rest else [[unit] for unit in rest]:
            self._step(units)
        for unit in self.units:
            unit.missing, unit.is_done = len(unit.parameters), False
        self._steps.finish()
        norms, self._norms = self._norms, GradientNorms()
        return norms

    def _on_gradient(self, unit: Unit) -> None:
        unit.missing -= 1
        if unit.missing == 0:
            self._waiting.append(unit)
            self._waiting_size += unit.size
            if self._waiting_size >= self._enough:
                self._step(self._waiting)

    def _before_leaving(self, block: int) -> None:
        """Step what has gradients in the block that leaves: parts never cross blocks, whose weights are not
        there together.
        """
        own = self._by_block.get(block, ())
        begun = [unit for unit in own if not unit.is_done and with_gradients(unit.parameters)]
        if found := list({id(unit): unit for unit in (*self._waiting, *begun)}.values()):
            for units in [found] if self._enough else [[unit] for unit in found]:
                self._step(units)

    @torch.no_grad()
    def _step(self, units: Sequence[Unit]) -> None:
        part = joined(unit.part for unit in units)
        having = with_gradients(parameters_of(part))
        if having:
            self._steps.step_part(part, *self._look_at(having))
        else:
            self._steps.step_part(part, None, None)
        if self._swapped is not None:
            self._swapped.changed(having)
        for parameter in having:
            parameter.grad = None  # freed here, which is why parts are stepped early
        for unit in units:
            unit.is_done = True
        self._waiting, self._waiting_size = [], 0

    def _look_at(self, parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor | None]:
        """Whether a gradient is bad, and what clipping multiplies the gradients by."""
        norms = gradient_norms(gradients_of(parameters))
        self._norms.parts.append((parameters, norms))
        norm = torch.linalg.vector_norm(norms)
        if not self.max_grad_norm:
            return is_not_finite(norm), None
        return is_not_finite(norm), clip_factor(norms if self.clips_each else norm, self.max_grad_norm)


def _apart(unit: Unit, swapped: SwappedBlocks) -> list[Unit]:
    """A unit, divided between blocks that come and go, and the rest."""
    found: dict[int | None, list[Part]] = {}
    for group, parameters in unit.part:
        for parameter in parameters:
            found.setdefault(swapped.home_of(parameter), []).append([(group, [parameter])])
    return [Unit(joined(parts)) for parts in found.values()]


def _split(parts: Sequence[Part], count: int) -> list[Part]:
    """Neighbours joined: no more than `count` parts, with about the same number of values each."""
    sizes = [sum(parameter.numel() for parameter in parameters_of(part)) for part in parts]
    shares: list[list[Part]] = [[] for _ in range(count)]
    done, total = 0, max(1, sum(sizes))
    for part, size in zip(parts, sizes, strict=True):
        # The share that the middle of the part falls into, if all values lay in a row.
        shares[min(count - 1, (done + size // 2) * count // total)].append(part)
        done += size
    return [joined(share) for share in shares if share]


@dataclass(frozen=True)
class UpdateInBackward(Update):
    """Steps within the backward pass, part by part; the methods here end the step.

    max_grad_norm: what the norm of each part's gradients is clipped to; 0 does not clip.
    steps: steps the parts.
    """

    steps: StepsInBackward
    is_in_backward: ClassVar[bool] = True

    def clip_gradients(self, step: int) -> Tensor:
        """End the step. Returns the norm of all gradients before clipping, which was done part by part."""
        norms = self.steps.finish()
        if self.ledger.measures_gradients(step):
            self.ledger.record_norms(step, norms.by_parameter())
        total = norms.total()
        return torch.zeros((), device=self.session.device) if total is None else total

    def take_step(self, loss: Tensor, norm: Tensor) -> None:
        """Count a bad step; the parts with bad gradients were skipped already."""
        self.guard.count(is_not_finite(norm).float())


def make_update_in_backward(
    update: Update, options: OptimizerOptions, swapped: SwappedBlocks | None = None
) -> UpdateInBackward:
    """The same update within the backward pass.

    swapped: blocks that come and go; None: all stay.
    Raises UserError with several processes."""
    if update.session.accelerator.num_processes > 1:
        cause = "works with one process: gradients of several are averaged after the backward pass"
        raise UserError.of(options.steps_in_backward, cause, "leave it out, or start one process")
    optimizer, parts = unwrapped(update.optimizer), options.fused_optimizer_groups
    return UpdateInBackward(
        session=update.session,
        optimizer=update.optimizer,
        guard=update.guard,
        ledger=update.ledger,
        weights=update.weights,
        max_grad_norm=update.max_grad_norm,
        steps=StepsInBackward(optimizer, parts, max_grad_norm=update.max_grad_norm, swapped=swapped),
    )
