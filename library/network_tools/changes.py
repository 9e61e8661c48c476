"""Network files as changes of weights, layer by layer, whatever kind of network they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, einsum

from library.models.values import fault_of, refuse_faults
from library.network.additive import MAGNITUDE
from library.network.files import ALPHA, NetworkFile, Shapes, read_network
from library.network.kinds import KINDS
from library.network_tools.factors import Factors
from library.problems import UserError, warn


@dataclass(frozen=True)
class FactorKind:
    """A kind of network whose change is a product of two matrices.

    factors: a module's tensors -> its change, exact, before alpha / rank.
    shape: the shapes of a module's tensors -> that of the weight it changes; None when they do not multiply.
    """

    factors: Callable[[Mapping[str, Tensor]], Factors]
    shape: Callable[[Shapes], tuple[int, ...] | None]


def _lora_factors(tensors: Mapping[str, Tensor]) -> Factors:
    """lora_up (out, rank[, 1, 1]) and lora_down (rank, in[, kernel height, kernel width]); or lora_down
    (rank, in, 1, 1) and lora_mid (rank, rank, kernel height, kernel width).
    """
    up, down = tensors["lora_up.weight"], tensors["lora_down.weight"]
    if "lora_mid.weight" in tensors:
        mid = tensors["lora_mid.weight"].float()
        down = einsum("pqhw,qi->pihw", mid, down.flatten(1).float())
    return Factors(up.flatten(1).float(), down.flatten(1).float(), (up.shape[0], *down.shape[1:]))


def _lora_shape(shapes: Shapes) -> tuple[int, ...] | None:
    up, down = shapes["lora_up.weight"], shapes["lora_down.weight"]
    multiplies = len(down) in (2, 4) and len(up) in (2, 4) and up[1:] in (down[:1], (down[0], 1, 1))
    if multiplies and (mid := shapes.get("lora_mid.weight")) is not None:
        multiplies = len(mid) == 4 and mid[:2] == (down[0], down[0]) and down[2:] in ((), (1, 1))
        down = (*down[:2], *mid[2:])
    return (up[0], *down[1:]) if multiplies and 0 not in (*up, *down) else None


FACTOR_KINDS = {"lora": FactorKind(_lora_factors, _lora_shape)}


@dataclass(frozen=True)
class Changes:
    """What a network file changes. Tensors are read one module at a time.

    file: the file.
    shapes: of the weights that its modules change, by the modules' names, sorted.
    """

    file: NetworkFile
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> Factors:
        """A module's change at strength 1. Raises UserError when it holds values that are no numbers."""
        tensors = {tensor: self.file.read(name, tensor) for tensor in self.file.modules[name]}
        faults = {f"{name}.{tensor}": fault_of(value) for tensor, value in tensors.items() if tensor != ALPHA}
        refuse_faults(self.file.path, {tensor: fault for tensor, fault in faults.items() if fault})
        return FACTOR_KINDS[self.file.kind].factors(tensors).scaled(self.scale(name))

    def scale(self, name: str) -> float:
        """A module's alpha / rank. Trainers read an alpha of 0 as the rank; so do we, see `open_changes`."""
        alpha = float(self.file.read(name, ALPHA)) if ALPHA in self.file.modules[name] else 0.0
        return alpha / self.file.ranks[name] if alpha else 1.0


def open_changes(path: Path) -> Changes:
    """The changes in a network file.

    Raises UserError when it is none, is not whole, or of a kind whose change is no product of two matrices.
    """
    file = read_network(path)
    row, kind = KINDS[file.kind], FACTOR_KINDS.get(file.kind)
    if kind is None:
        raise UserError.of(path, f"is a {row.title}, whose change is no product of two matrices")
    if file.unknown:
        cause = f"{len(file.unknown)} of its tensors are not those of a {row.title}, e.g. {min(file.unknown)}"
        raise UserError.of(path, cause)
    found = {}
    for name, shapes in sorted(file.modules.items()):
        if MAGNITUDE in shapes:
            cause = f"is DoRA ({name}.{MAGNITUDE}), whose change depends on the model's weights"
            raise UserError.of(path, cause)
        missing = sorted(set(row.needs) - shapes.keys())
        if missing:
            raise UserError.of(path, f"{name} has no {missing[0]}", "the file is not whole; get it again")
        shape = kind.shape(shapes)
        if shape is None:
            sides = " and ".join(f"{tensor} {shapes[tensor]}" for tensor in row.needs)
            raise UserError.of(path, f"{name}: {sides} do not multiply", "the file is damaged; get it again")
        found[name] = shape
    zeros = [name for name, alpha in file.alphas().items() if not alpha]
    if zeros:
        warn(f"{path}: alpha is 0 in {len(zeros)} modules, e.g. {zeros[0]}: read as the rank, as trainers do")
    return Changes(file, found)
