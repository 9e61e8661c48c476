"""Optimizer steps within the backward pass, part by part.

Gradients that are used at once can be freed at once, so that no more of them are in memory than a part has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from library.options.optimizer import OptimizerOptions
from library.problems import UserError
from library.training.optimization.guard import step_unless_bad
from library.training.optimization.rounding import RoundedOptimizer, parameters_of, wrapped_optimizers
from library.training.optimization.self_tuning import unwrapped
from library.training.optimization.update import Update, clip_factor

Group = dict[str, Any]


@dataclass
class StepPart:
    """Parameters that are stepped together.

    groups: the indices of their optimizer groups, each with the parameters from it.
    missing: how many parameters still wait for their gradient.
    is_done: whether the part was stepped in this step.
    """

    groups: list[tuple[int, list[nn.Parameter]]]
    missing: int = 0
    is_done: bool = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameters in self.groups for parameter in parameters]


class StepsInBackward:
    """Steps each part as soon as the backward pass has its gradients, and frees them.

    There is still one optimizer: during a part's step its groups hold only that part's parameters. Its state
    is therefore the same as without this, and a state fits both.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parts: int | None, *, max_grad_norm: float = 0.0
    ) -> None:
        """parts: how many; None: one per parameter.
        max_grad_norm: what the norm of a part's gradients is clipped to; 0 does not clip.
        """
        self.optimizer, self.max_grad_norm = optimizer, max_grad_norm
        self.parts = _split(optimizer.param_groups, parts)
        self._stepped_groups: dict[
            tuple[int, int], Group
        ] = {}  # (level, group): the group after a part's step
        self._norms: dict[nn.Parameter, Tensor] = {}
        for part in self.parts:
            part.missing = len(part.parameters)
            for parameter in part.parameters:
                parameter.register_post_accumulate_grad_hook(lambda _, part=part: self._on_gradient(part))

    def finish(self) -> dict[nn.Parameter, Tensor]:
        """End a step: parts without gradients are stepped too, as an optimizer counts steps for all it has.

        Returns the norm of each gradient before clipping. Parts with a bad gradient were skipped.
        """
        for part in self.parts:
            if not part.is_done:
                self._step(part)
            part.missing, part.is_done = len(part.parameters), False
        # Only now: each part's step had to find the groups as they were before the whole step.
        for (level, number), group in self._stepped_groups.items():
            whole = wrapped_optimizers(self.optimizer)[level].param_groups[number]
            whole.update({key: value for key, value in group.items() if key != "params"})
        if isinstance(self.optimizer, RoundedOptimizer) and self._stepped_groups:
            self.optimizer.count_step()
        norms, self._norms, self._stepped_groups = self._norms, {}, {}
        return norms

    def _on_gradient(self, part: StepPart) -> None:
        part.missing -= 1
        if part.missing == 0:
            self._step(part)

    @torch.no_grad()
    def _step(self, part: StepPart) -> None:
        having = [parameter for parameter in part.parameters if parameter.grad is not None]
        is_bad = ~self._clip(having).isfinite() if having else torch.tensor(False)
        with self._restricted_to(part):
            if self._step_unless_bad(is_bad):
                self._keep_groups(part)
        for parameter in having:
            parameter.grad = None  # freed here, which is why parts are stepped early
        part.is_done = True

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip a part's gradients. Returns their norm before clipping."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
        self._norms.update(zip(parameters, norms, strict=True))
        norm = torch.linalg.vector_norm(torch.stack(norms))
        if self.max_grad_norm:
            torch._foreach_mul_(gradients, clip_factor(norm, self.max_grad_norm))
        return norm

    def _step_unless_bad(self, is_bad: Tensor) -> bool:
        """Step the parameters in the groups. Returns False if the step was skipped, see `step_unless_bad`."""
        if isinstance(self.optimizer, RoundedOptimizer):
            return self.optimizer.step_part(is_bad)
        return step_unless_bad(is_bad, self.optimizer, self.optimizer)

    @contextmanager
    def _restricted_to(self, part: StepPart) -> Iterator[None]:
        """Context manager; inside it the optimizer has only this part, in the groups as before the step."""
        layers = wrapped_optimizers(self.optimizer)
        wholes = [level.param_groups for level in layers]
        for level, whole in zip(layers, wholes, strict=True):
            level.param_groups = [
                {**whole[number], "params": parameters_of(level, self.optimizer, parameters)}
                for number, parameters in part.groups
            ]
        try:
            yield
        finally:
            for level, whole in zip(layers, wholes, strict=True):
                level.param_groups = whole

    def _keep_groups(self, part: StepPart) -> None:
        """Keep what a part's step changed in its groups until all parts are done."""
        for index, level in enumerate(wrapped_optimizers(self.optimizer)):
            for (number, _), group in zip(part.groups, level.param_groups, strict=True):
                self._stepped_groups[index, number] = group


def _split(groups: list[Group], count: int | None) -> list[StepPart]:
    """Parts of neighbouring parameters, with about the same number of values each."""
    owned = [(number, parameter) for number, group in enumerate(groups) for parameter in group["params"]]
    if count is None:
        return [StepPart([(number, [parameter])]) for number, parameter in owned]
    total = sum(parameter.numel() for _, parameter in owned)
    shares: list[dict[int, list[nn.Parameter]]] = [{} for _ in range(count)]
    done = 0
    for number, parameter in owned:
        # The share that the middle of the parameter falls into, if all values lay in a row.
        share = shares[(done + parameter.numel() // 2) * count // total]
        share.setdefault(number, []).append(parameter)
        done += parameter.numel()
    return [StepPart(list(share.items())) for share in shares if share]


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
        self.ledger.record_norms(step, norms)
        if not norms:
            return torch.zeros((), device=self.session.device)
        return torch.linalg.vector_norm(torch.stack(list(norms.values())))

    def take_step(self, loss: Tensor, norm: Tensor) -> None:
        """Count a bad step; the parts with bad gradients were skipped already."""
        self.guard.count((~norm.isfinite()).float())


def make_update_in_backward(update: Update, options: OptimizerOptions) -> UpdateInBackward:
    """The same update within the backward pass. Raises UserError with several processes."""
    if update.session.accelerator.num_processes > 1:
        cause = "works with one process: gradients of several are averaged after the backward pass"
        raise UserError.of(options.steps_in_backward, cause, "leave it out, or start one process")
    optimizer, parts = unwrapped(update.optimizer), options.fused_optimizer_groups
    return UpdateInBackward(
        session=update.session,
        optimizer=update.optimizer,
        guard=update.guard,
        ledger=update.ledger,
        max_grad_norm=update.max_grad_norm,
        steps=StepsInBackward(optimizer, parts, max_grad_norm=update.max_grad_norm),
    )
