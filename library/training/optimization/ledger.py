"""The ledger of a run: for each component that is trained, how many parameters it has, how far they moved and
how large their gradients were. A component that was to be trained and did not move is an error after ten
steps.

How far a component moved is measured on a sample of its weights, the same in every run: all of a small
component, about 262,000 of a large one. So it costs 1 MB per component, not a second model, and fits a state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from library.problems import Problem, UserError, warn
from library.randomness import keyed_generator
from library.training.optimization.gradients import with_gradients
from library.training.sharding.whole import Weights
from library.training.tasks.components import Component
from library.wording import counted

SAMPLE = 2**18  # weights that are sampled from a component
MIN_SAMPLE = 16  # at least this many from each tensor of a component
GRADIENTS_EVERY = 10  # steps between two measurements of the gradients
# Some optimizers move nothing in their first steps: RAdam, until it can estimate the variance of gradients.
MIN_STEPS = 10


@dataclass(frozen=True)
class Entry:
    """How a component was trained.

    part: the component's name.
    parameters: how many were trained.
    moved: norm of the change over the norm at the start; infinite when that was 0.
    gradient: mean norm of its gradients before clipping; None when none was measured.
    steps: how many should have moved it, without those that were skipped or had a rate of 0.
    """

    part: str
    parameters: int
    moved: float
    gradient: float | None
    steps: int

    @property
    def did_not_move(self) -> bool:
        return self.steps > 0 and self.moved == 0


@dataclass(frozen=True)
class Balance:
    """How each component was trained in a span of steps.

    entries: one per component.
    since: steps done at the start of the span.
    until: steps done at its end.
    """

    entries: tuple[Entry, ...]
    since: int
    until: int

    def __str__(self) -> str:
        """The entries as a small table."""
        rows = [("", "parameters", "moved", "gradient")]
        rows += [(e.part, f"{e.parameters:,}", percent(e.moved), figure(e.gradient)) for e in self.entries]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        return "\n".join([f"what steps {self.since} to {self.until} trained:", *lines])

    def raise_if_unmoved(self) -> None:
        """Raises UserError with the components that were to be trained and did not move; only warns of those
        that had fewer than MIN_STEPS steps.
        """
        still = [entry for entry in self.entries if entry.did_not_move]
        cause = f"was to be trained and did not move in steps {self.since} to {self.until}"
        fix = "raise its learning rate, or leave it out of training; everything was saved"
        for entry in still:
            if entry.steps < MIN_STEPS:
                few = counted(entry.steps, "step")
                warn(f"{entry.part} {cause}; in {few} that may be the optimizer's way to begin")
        if parts := [entry.part for entry in still if entry.steps >= MIN_STEPS]:
            raise UserError(Problem(part, cause, fix) for part in parts)


class Ledger:
    """Records during a run how its components are trained."""

    def __init__(
        self,
        components: Sequence[Component],
        since: int,
        weights: Weights,
        masters: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """since: steps done before. The weights as they are now count as the start.
        weights: how the processes hold them.
        masters: makes what weights are read in, see `Model.masters`.
        """
        self.components, self.since, self.weights, self._masters = components, since, weights, masters
        self.restart()
        # Of each component: the sum of its gradient norms and their count, (2,); its steps, a scalar.
        self._gradients = {one.name: torch.zeros(2, device=one.parameters[0].device) for one in components}
        self._steps = {name: torch.zeros_like(sums[0]) for name, sums in self._gradients.items()}
        self._numbers: dict[str, list[int]] = {}

    def restart(self) -> None:
        """Take the weights as they are now for the start."""
        self._start = self._samples()

    def _samples(self) -> dict[str, Tensor]:
        """A sample of each component's weights as they are now. All processes call it together."""
        with self._masters():
            return {one.name: self._sample(one) for one in self.components}

    def record_step(self, groups: Sequence[Mapping[str, Any]], norm: Tensor, *, trains_text: bool) -> None:
        """Count a step for each component that it should move, without waiting for the device.

        groups: the optimizer's, with the rates of the step.
        norm: of all gradients; when it is not finite, the step is skipped and counts for nothing.
        trains_text: whether gradients reach the text encoders in this step.
        """
        for one in self.components:
            if any(groups[n]["lr"] != 0 for n in self._groups_of(one, groups)) and (
                trains_text or not one.is_text
            ):
                self._steps[one.name] += norm.isfinite()

    def _groups_of(self, one: Component, groups: Sequence[Mapping[str, Any]]) -> list[int]:
        """The indices of the groups that hold a component's parameters; they never change."""
        if one.name not in self._numbers:
            own = set(map(id, self.weights.own(one.parameters)))
            found = [n for n, group in enumerate(groups) if any(id(p) in own for p in group["params"])]
            self._numbers[one.name] = found
        return self._numbers[one.name]

    def measures_gradients(self, step: int) -> bool:
        """Whether the gradients of a (0-based) step are measured."""
        return step % GRADIENTS_EVERY == 0

    @torch.no_grad()
    def measure_gradients(self, step: int, factor: Tensor | float = 1.0) -> None:
        """Measure the gradients of a (0-based) step, if it is one of those measured.

        factor: what the gradients were multiplied by, by clipping or a loss scaler.
        """
        if not self.measures_gradients(step):
            return
        for one in self.components:
            if having := with_gradients(self.weights.own(one.parameters)):
                self._add(one, self.weights.norm(having) / factor)

    @torch.no_grad()
    def record_norms(self, step: int, norms: Mapping[nn.Parameter, Tensor]) -> None:
        """The same for gradients that are freed already, given the norm of each."""
        if not self.measures_gradients(step):
            return
        for one in self.components:
            if found := [norms[parameter] for parameter in one.parameters if parameter in norms]:
                self._add(one, torch.linalg.vector_norm(torch.stack(found)))

    @torch.no_grad()
    def _sample(self, one: Component) -> Tensor:
        """A sample of a component's weights: (n,) float32 on the CPU."""
        return self.weights.values_at(_places(one))

    def _add(self, one: Component, norm: Tensor) -> None:
        found = torch.stack([norm, torch.ones_like(norm)])
        self._gradients[one.name] += torch.where(norm.isfinite(), found, 0)

    def balance(self, until: int) -> Balance:
        """The balance after `until` steps. All processes call it together."""
        now = self._samples()
        entries = tuple(self._entry(one, now[one.name]) for one in self.components)
        return Balance(entries, self.since, until)

    def _entry(self, one: Component, now: Tensor) -> Entry:
        """now: a sample of its weights."""
        start = self._start[one.name]
        total, count = self._gradients[one.name].tolist()
        weights = _weights(one.parameters)
        size, change = (_norm(values, weights) for values in (start, now - start))
        moved = change / size if size else math.inf if change else 0.0
        number = sum(parameter.numel() for parameter in one.parameters)
        return Entry(one.name, number, moved, total / count if count else None, int(self._steps[one.name]))

    def tensors(self) -> dict[str, Tensor]:
        """What a state must hold of the ledger."""
        found = {"since": torch.tensor(self.since)}
        for name in self._start:
            found |= {
                f"{name}.start": self._start[name],
                f"{name}.gradients": self._gradients[name],
                f"{name}.steps": self._steps[name],
            }
        return found

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Resume from a state's ledger; a component that the state does not know, or not as this one measures
        it, starts now.
        """
        own = self.tensors()
        known = {key for key, value in tensors.items() if key in own and _is_alike(value, own[key])}
        for name in self._start:
            if known.issuperset({"since", f"{name}.start", f"{name}.gradients", f"{name}.steps"}):
                self._start[name] = tensors[f"{name}.start"]
                self._gradients[name].copy_(tensors[f"{name}.gradients"])
                self._steps[name].copy_(tensors[f"{name}.steps"])
                self.since = int(tensors["since"])


def _is_alike(kept: Tensor, own: Tensor) -> bool:
    """Whether a state's tensor can take the place of this one."""
    return kept.shape == own.shape and kept.dtype == own.dtype and bool(kept.isfinite().all())


def _shares(parameters: Sequence[nn.Parameter]) -> list[int]:
    """How many weights of each tensor are sampled."""
    total = sum(parameter.numel() for parameter in parameters)
    share = min(1.0, SAMPLE / max(total, 1))
    return [min(p.numel(), max(MIN_SAMPLE, math.ceil(p.numel() * share))) for p in parameters]


def _places(one: Component) -> list[tuple[nn.Parameter, Tensor | None]]:
    """The sampled weights of a component, always the same ones, as a state holds the values that they began
    with: each parameter with the numbers of its elements, None for all.
    """
    found: list[tuple[nn.Parameter, Tensor | None]] = []
    for number, (parameter, count) in enumerate(zip(one.parameters, _shares(one.parameters), strict=True)):
        chosen = None
        if count < parameter.numel():
            generator = keyed_generator(0, "ledger", one.name, number)
            chosen = torch.randint(parameter.numel(), (count,), generator=generator)
        found.append((parameter, chosen))
    return found


def _weights(parameters: Sequence[nn.Parameter]) -> Tensor:
    """How many weights each value of a sample stands for: (n,)."""
    counts = torch.tensor(_shares(parameters))
    sizes = torch.tensor([float(parameter.numel()) for parameter in parameters])
    return torch.repeat_interleave(sizes / counts, counts)


def _norm(values: Tensor, weights: Tensor) -> float:
    return math.sqrt(float((weights.double() * values.double().square()).sum()))


def percent(share: float) -> str:
    """How far a component moved, as text."""
    return "from 0" if math.isinf(share) else f"{100 * share:.3g} %"


def figure(value: float | None) -> str:
    """The norm of a gradient, as text."""
    return "-" if value is None else f"{value:.3g}"
