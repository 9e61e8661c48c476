"""Network files as changes of weights, layer by layer, whatever kind of network they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from library.models.single_files import all_finite
from library.network.files import ALPHA, NetworkFile, read_network
from library.network.kinds import KINDS
from library.network_tools.factors import Factors
from library.problems import Problems, UserError, warn

# By kind: a module's tensors -> its change as factors, exact, before alpha / rank.
FACTORS: dict[str, Callable[[Mapping[str, Tensor]], Factors]] = {}


def _lora(tensors: Mapping[str, Tensor]) -> Factors:
    """B A: lora_up (out, rank[, 1, 1]) and lora_down (rank, in[, kernel height, kernel width])."""
    up, down = tensors["lora_up.weight"], tensors["lora_down.weight"]
    return Factors(up.flatten(1).float(), down.flatten(1).float(), (up.shape[0], *down.shape[1:]))


FACTORS["lora"] = _lora


@dataclass(frozen=True)
class Changes:
    """What a network file changes. Tensors are read one module at a time.

    file: the file.
    """

    file: NetworkFile

    @property
    def names(self) -> list[str]:
        """The modules, sorted."""
        return sorted(self.file.modules)

    def read(self, name: str) -> Factors:
        """A module's change at strength 1. Raises UserError when it holds NaN or has shapes that do not
        multiply.
        """
        tensors = {tensor: self.file.read(name, tensor) for tensor in self.file.modules[name]}
        for tensor, value in tensors.items():
            if not all_finite(value):
                raise UserError.of(self.file.path, f"{name}.{tensor} is not finite", "it cannot be used")
        return FACTORS[self.file.kind](tensors).scaled(self.scale(name))

    def scale(self, name: str) -> float:
        """A module's alpha / rank. Trainers read an alpha of 0 as the rank; so do we, see `open_changes`."""
        alpha = float(self.file.read(name, ALPHA)) if ALPHA in self.file.modules[name] else 0.0
        return alpha / self.file.ranks[name] if alpha else 1.0


def open_changes(path: Path) -> Changes:
    """The changes in a network file. Raises UserError when it is none, or of a kind without factors."""
    file = read_network(path)
    row = KINDS[file.kind]
    problems = Problems()
    if file.kind not in FACTORS:
        problems.add(path, f"is a {row.title}, whose change is no product of two matrices")
    for key in sorted(file.unknown)[:1]:
        problems.add(path, f"{len(file.unknown)} of its tensors are not those of a {row.title}, e.g. {key}")
    for name, shapes in file.modules.items():
        for missing in set(row.needs) - shapes.keys():
            problems.add(path, f"{name} has no {missing}", "the file is not whole; get it again")
            break
        else:
            problems.attempt(_check_shapes, path, name, shapes)
    if len(problems.found) > 3:
        problems.found[3:] = []
    problems.raise_if_any()
    zeros = [name for name, alpha in file.alphas().items() if not alpha]
    if zeros:
        warn(f"{path}: alpha is 0 in {len(zeros)} modules, e.g. {zeros[0]}: read as the rank, as trainers do")
    return Changes(file)


def each_name(files: Mapping[Path, Changes] | list[Changes]) -> Iterator[str]:
    """Every module that any of the files has, sorted."""
    found = files.values() if isinstance(files, Mapping) else files
    yield from sorted({name for changes in found for name in changes.names})


def _check_shapes(path: Path, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if "lora_down.weight" not in shapes:
        return
    up, down = shapes["lora_up.weight"], shapes["lora_down.weight"]
    if len(up) < 2 or len(down) < 2 or up[1] != down[0] or not down[0]:
        cause = f"{name}: lora_up {up} and lora_down {down} do not multiply"
        raise UserError.of(path, cause, "the file is damaged")
