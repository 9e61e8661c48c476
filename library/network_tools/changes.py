"""Network files as changes of weights, layer by layer, whatever kind of network they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from library.models.values import fault_of, refuse_faults
from library.network.additive import MAGNITUDE
from library.network.files import ALPHA, NetworkFile, read_network
from library.network.kinds import KINDS
from library.network.matching import number_fault, unplaced
from library.network_tools.factors import Factors
from library.network_tools.products import PRODUCT_KINDS
from library.problems import UserError, warn


@dataclass(frozen=True)
class Changes:
    """What a network file changes. Tensors are read one module at a time.

    file: the file.
    shapes: of the weights that its modules change, by the modules' names, sorted.
    alphas: of the modules.
    """

    file: NetworkFile
    shapes: Mapping[str, tuple[int, ...]]
    alphas: Mapping[str, float]

    def read(self, name: str) -> Factors:
        """A module's change at strength 1. Raises UserError when it holds values that are no numbers."""
        tensors = {tensor: self.file.read(name, tensor) for tensor in self.file.modules[name]}
        faults = {f"{name}.{tensor}": fault_of(value) for tensor, value in tensors.items() if tensor != ALPHA}
        refuse_faults(self.file.path, {tensor: fault for tensor, fault in faults.items() if fault})
        return PRODUCT_KINDS[self.file.kind].factors(tensors).scaled(self.scale(name))

    def scale(self, name: str) -> float:
        """A module's alpha / rank. Trainers read an alpha of 0 as the rank; so do we, see `open_changes`."""
        rank = PRODUCT_KINDS[self.file.kind].rank(self.file.modules[name])
        alpha = self.alphas.get(name)
        return alpha / rank if alpha and rank else 1.0


def open_changes(path: Path) -> Changes:
    """The changes in a network file.

    Raises UserError when it is none, is not whole, or of a kind whose change depends on the model's weights.
    """
    file = read_network(path)
    if why := KINDS[file.kind].why_no_weights:
        raise UserError.of(path, f"is {KINDS[file.kind].named}, which is no change of weights: {why}")
    if told := told_by_weights(file):
        fix = "give the model it is for with --base_model"
        raise UserError.of(path, f"{told}, whose change depends on the model's weights", fix)
    row, kind = KINDS[file.kind], PRODUCT_KINDS[file.kind]
    for what, keys in unplaced(file, file.modules, "").items():
        cause = f"{len(keys)} of its tensors, e.g. {min(keys)}, are {what}"
        if min(keys) in file.along:
            raise UserError.of(path, f"{cause}: no LoRA holds any", "merge it into the checkpoint")
        if min(keys) in file.unknown:
            raise UserError.of(path, f"{cause}: they are no part of a {row.title}")
        warn(f"{path}: {cause}: they are left out")
    found = {}
    for name, shapes in sorted(file.modules.items()):
        missing = sorted(set(row.needs) - shapes.keys())
        if missing:
            raise UserError.of(path, f"{name} has no {missing[0]}", "the file is not whole; get it again")
        shape = kind.shape(shapes)
        if shape is None:
            sides = " and ".join(f"{tensor} {sides}" for tensor, sides in shapes.items() if tensor != ALPHA)
            raise UserError.of(path, f"{name}: {sides} do not multiply", "the file is damaged; get it again")
        found[name] = shape
    alphas = read_alphas(file)
    zeros = [name for name, alpha in alphas.items() if not alpha]
    if zeros:
        warn(f"{path}: alpha is 0 in {len(zeros)} modules, e.g. {zeros[0]}: read as the rank, as trainers do")
    return Changes(file, found, alphas)


def told_by_weights(file: NetworkFile) -> str:
    """What a file is, if its change depends on the weights that it changes; else ""."""
    if file.kind not in PRODUCT_KINDS:
        return f"is {KINDS[file.kind].named}"
    name = next((name for name, shapes in sorted(file.modules.items()) if MAGNITUDE in shapes), None)
    return "" if name is None else f"is DoRA ({name}.{MAGNITUDE})"


def read_alphas(file: NetworkFile) -> dict[str, float]:
    """Each module's alpha. Raises UserError when one is no number."""
    given = {name: file.read(name, ALPHA) for name, shapes in file.modules.items() if ALPHA in shapes}
    faults = {f"{name}.{ALPHA}": number_fault(ALPHA, alpha) for name, alpha in given.items()}
    refuse_faults(file.path, {name: fault for name, fault in faults.items() if fault})
    return file.alphas()
