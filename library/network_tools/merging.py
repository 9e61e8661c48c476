"""Sums of networks: the exact sum of ratio x change, whatever their ranks and alphas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from library.network.block_weights import weight_of
from library.network_tools.changes import Changes
from library.network_tools.factors import Factors, combine
from library.problems import UserError

Progress = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True)
class Term:
    """A network that is added.

    ratio: how strongly; may be negative.
    blocks: how strongly in each of 26 blocks, besides.
    """

    changes: Changes
    ratio: float
    blocks: tuple[float, ...] | None = None

    def strength(self, module: str) -> float:
        return self.ratio * (1.0 if self.blocks is None else weight_of(module, self.blocks))


@dataclass(frozen=True)
class Merged:
    """A sum as a LoRA.

    modules: the change of each, by name.
    error: the norm of what the ranks could not hold, relative to the whole sum's norm.
    """

    modules: dict[str, Factors]
    error: float


def check_terms(terms: Sequence[Term]) -> None:
    """Raises UserError when the networks call no layer by the same name, or differ in a layer's shape."""
    first = terms[0].changes
    for term in terms[1:]:
        other = term.changes
        shared = sorted(first.shapes.keys() & other.shapes.keys())
        if not shared:
            cause = f"has no layer in common with {first.file.path.name}: e.g. {min(other.shapes)}"
            raise UserError.of(other.file.path, cause, "merge networks of one family, saved by one program")
        for name in shared:
            one, two = _sides(first.shapes[name]), _sides(other.shapes[name])
            if one != two:
                cause = f"{name} changes a weight of {two}, in {first.file.path.name} one of {one}"
                raise UserError.of(other.file.path, cause, "merge networks of one family")


def merge(
    terms: Sequence[Term],
    *,
    rank: Callable[[Sequence[Factors]], int | None],
    device: torch.device,
    progress: Progress = iter,
) -> Merged:
    """The sum of networks, one module at a time.

    rank: what a module's rank may be at most, given the changes that are added; None: whatever is exact.
    device: where sums are computed, in float32.
    """
    modules, lost, whole = {}, 0.0, 0.0
    names = sorted({name for term in terms for name in term.changes.shapes})
    for name in progress(names):
        changes = []
        for term in terms:
            if name in term.changes.shapes:
                factors = term.changes.read(name)
                on_device = Factors(factors.up.to(device), factors.down.to(device), factors.shape)
                changes.append(on_device.scaled(term.strength(name)))
        total, most = combine(changes), rank(changes)
        if most is not None and most < total.rank:
            spectrum = total.decompose(most)
            total, energy = spectrum.factors(most), spectrum.energy
            lost += energy * spectrum.error(most) ** 2
        else:
            energy = total.norm() ** 2
        whole += energy
        modules[name] = Factors(total.up.cpu(), total.down.cpu(), total.shape)
    return Merged(modules, (lost / whole) ** 0.5 if whole else 0.0)


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape without the sides of a 1x1 kernel: some programs keep one as a matrix."""
    return shape[:2] if shape[2:] == (1, 1) else shape
