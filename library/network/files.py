"""Network files of any kind: what they hold, and where in a model it belongs.

    lora_unet_mid_block_attentions_0_proj_in.lora_down.weight
    '------------- a module ---------------' '-- a tensor --'

`read_network` needs no model and reads no more than the header; `read_for` matches a file's modules to the
layers of a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from library.models.values import fault_of, refuse_faults
from library.models.weights import TensorFile, open_tensors, read_header
from library.network.kinds import KINDS, NUMBERS, FileKind
from library.network.names import module_name, points_by_name
from library.network.sizes import Size
from library.problems import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from library.models.base import AttachPoint, Model

Shapes = Mapping[str, tuple[int, ...]]
ALPHA = "alpha"


@dataclass(frozen=True)
class NetworkFile:
    """A network file before its tensors are read. No torch is needed until then.

    path: the file.
    kind: the kind of network, a name in KINDS.
    modules: by a module's name in the file, the shapes of its tensors by their names there.
    unknown: keys that are no tensors of this kind, with their shapes.
    metadata: what it says about itself; empty for formats that have no place for it.
    """

    path: Path
    kind: str
    modules: Mapping[str, Shapes]
    unknown: Shapes
    metadata: Mapping[str, str]

    @property
    def ranks(self) -> dict[str, int]:
        """Each module's rank, where the kind has one."""
        rank = KINDS[self.kind].rank
        shapes = {} if rank is None else self._shapes_of(rank)
        return {name: shape[0] for name, shape in shapes.items()}

    def alphas(self) -> dict[str, float]:
        """Each module's alpha, where it has one; one that is missing is the rank. Reads them."""
        given = {name: float(self.read(name, ALPHA)) for name in self._shapes_of(ALPHA)}
        return {name: float(rank) for name, rank in self.ranks.items()} | given

    def read(self, module: str, tensor: str) -> Tensor:
        """One tensor, by the names in `modules`."""
        return self._file.read(f"{module}.{tensor}")

    @cached_property
    def _file(self) -> TensorFile:
        return open_tensors(self.path)

    def _shapes_of(self, tensor: str) -> dict[str, tuple[int, ...]]:
        """The shape of the tensor of this name in each module that has it."""
        return {name: shapes[tensor] for name, shapes in self.modules.items() if tensor in shapes}


@dataclass(frozen=True)
class MatchedFile:
    """A network file whose modules have found their layers in a model.

    kind: the kind of network.
    points: where each module stands, by the name that our files have for it, sorted.
    modules: by the same names, each one's tensors; an alpha that is missing is filled in.
    """

    kind: FileKind
    points: Mapping[str, AttachPoint]
    modules: Mapping[str, Mapping[str, Tensor]]

    def size(self, module: str) -> Size:
        """A module's rank and alpha; 0 where it has none."""
        tensors, rank = self.modules[module], self.kind.rank
        return Size(
            rank=tensors[rank].shape[0] if rank is not None and rank in tensors else 0,
            alpha=float(tensors[ALPHA]) if ALPHA in tensors else 0.0,
        )

    def shapes(self, module: str) -> Shapes:
        """The shapes of a module's tensors."""
        return {name: tuple(tensor.shape) for name, tensor in self.modules[module].items()}

    def tensors(self, modules: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these modules, by the keys that our files have for them."""
        return {f"{name}.{tensor}": value for name in modules for tensor, value in self.modules[name].items()}


def read_network(path: Path, kind: str | None = None) -> NetworkFile:
    """What a network file holds. kind: the only one that is wanted, a name in KINDS; None: any of them.

    Raises UserError when the file cannot be read, is of another kind or of none that is known, or mixes
    kinds.
    """
    header = read_header(path)
    name = _kind_of(path, header.shapes, kind)
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    unknown, rank = {}, KINDS[name].rank
    for key, shape in header.shapes.items():
        module, tensor = _split(key)
        if tensor == rank and (len(shape) < 2 or shape[0] == 0):
            raise UserError.of(path, f"{key} has no rank: its shape is {shape}", "get the file again")
        if tensor in KINDS[name].tensors:
            modules.setdefault(module, {})[tensor] = shape
        else:
            unknown[key] = shape
    return NetworkFile(path, name, modules, unknown, header.metadata)


def read_for(model: Model, path: Path, kind: str | None = None) -> MatchedFile:
    """A network file for a model. kind: as for `read_network`.

    Raises UserError when it cannot be read, is not whole, holds more than the kind has or values that no
    weights have, or does not fit the model.
    """
    found = read_network(path, kind)
    row = KINDS[found.kind]
    keys = {f"{name}.{tensor}" for name, shapes in found.modules.items() for tensor in shapes}
    optional = {f"{name}.{tensor}" for name in found.modules for tensor in row.may_have}
    telling = (name for name, shapes in found.modules.items() if row.signs & shapes.keys())
    check_names(_needed(row, telling), (keys - optional) | found.unknown.keys(), str(path))
    points = points_by_name(model.attach_points(), row.prefix)
    check_names(found.modules.keys() & points.keys(), found.modules, str(path))
    check_names(_needed(row, found.modules), keys - optional, str(path))  # none has an alpha alone
    read = {
        name: {tensor: found.read(name, tensor) for tensor in shapes}
        for name, shapes in found.modules.items()
    }
    _check_values(path, read)
    modules = {
        module_name(points[name], row.prefix): {
            tensor: value.reshape(()) if tensor in NUMBERS else value for tensor, value in tensors.items()
        }
        for name, tensors in read.items()
    }
    if row.rank is not None and ALPHA in row.tensors:
        for tensors in modules.values():
            if row.rank in tensors and ALPHA not in tensors:
                tensors[ALPHA] = _as_alpha(tensors[row.rank].shape[0])
    return MatchedFile(row, {name: points[name] for name in sorted(modules)}, modules)


def check_names(own: Iterable[str], given: Iterable[str], source: str) -> None:
    """Raises UserError when two sets of tensor names differ, naming one example of each kind."""
    own, given = set(own), set(given)
    missing, foreign = sorted(own - given), sorted(given - own)
    if foreign:
        raise UserError.of(
            source, f"{len(foreign)} of its tensors have no place in this model, e.g. {foreign[0]}"
        )
    if missing:
        raise UserError.of(source, f"{len(missing)} tensors are missing, e.g. {missing[0]}")


def fit_shape(tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """The tensor in this shape if only trailing sides of 1 differ (a 1x1 convolution stored as a matrix), or
    None.
    """
    if tensor.shape == shape:
        return tensor
    same = [side for side in tensor.shape if side != 1] == [side for side in shape if side != 1]
    return (
        tensor.reshape(shape) if same and tensor.numel() == shape.numel() and tensor.ndim in (2, 4) else None
    )


def _kind_of(path: Path, keys: Iterable[str], wanted: str | None) -> str:
    """The kind of a file with these keys, a name in KINDS."""
    told = {key: kinds for key in keys if (kinds := _kinds_telling(key))}
    fitting = set(KINDS).intersection(*told.values()) if told else set()
    if wanted is not None and not any(wanted in kinds for kinds in told.values()):
        raise UserError.of(path, f"holds no {KINDS[wanted].title} weights", _advice(fitting))
    if not told:
        key = next(iter(keys), "nothing at all")
        raise UserError.of(path, "holds no network of a kind that is known here", f"it has e.g. {key}")
    if not fitting:
        examples = {KINDS[kinds[0]].title: key for key, kinds in reversed(told.items())}
        mixed = " and ".join(f"{title} ({key})" for title, key in sorted(examples.items()))
        raise UserError.of(path, f"mixes kinds of networks: {mixed}")
    return wanted if wanted in fitting else next(name for name in KINDS if name in fitting)


def _kinds_telling(key: str) -> list[str]:
    """The kinds that have a tensor of this name and, if several have, call their modules so."""
    module, tensor = _split(key)
    kinds = [name for name, kind in KINDS.items() if tensor in kind.signs]
    named = [name for name in kinds if module.startswith(f"{KINDS[name].prefix}_")]
    return named or kinds


def _advice(kinds: Iterable[str]) -> str:
    """What to do with a file of another kind than the one asked for."""
    return " or ".join(
        f"for a {KINDS[name].title} give --network_module {KINDS[name].module}" for name in kinds
    )


def _split(key: str) -> tuple[str, str]:
    """A key's module and tensor, the longest name of a tensor that any kind has; empty when it has none."""
    module, _, tensor = key.partition(".")
    while tensor and not any(tensor in kind.tensors for kind in KINDS.values()):
        rest, _, tensor = tensor.partition(".")
        module = f"{module}.{rest}"
    return (module, tensor) if tensor else ("", "")


def _needed(kind: FileKind, modules: Iterable[str]) -> set[str]:
    return {f"{name}.{tensor}" for name in modules for tensor in kind.needs}


def _check_values(path: Path, modules: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raises UserError for tensors that hold what they cannot."""
    faults = {}
    for name, tensors in modules.items():
        for tensor, value in tensors.items():
            fault = _number_fault(tensor, value) if tensor in NUMBERS else fault_of(value)
            if fault:
                faults[f"{name}.{tensor}"] = fault
    refuse_faults(path, faults)


def _number_fault(tensor: str, value: Tensor) -> str:
    """Programs write these as one number of any real type."""
    is_number = value.numel() == 1 and not value.is_complex() and isfinite(float(value))
    return "" if is_number else f"an {tensor} that is no number"


def _as_alpha(rank: int) -> Tensor:
    import torch

    return torch.tensor(float(rank))
