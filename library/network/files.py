"""Network files of any kind and any program: what they hold, read without a model.

    lora_unet_mid_block_attentions_0_proj_in.lora_down.weight
    '------------- a module ---------------' '-- a tensor --'

Names are sd-scripts', whatever the file calls them (`spellings.py`). No more than headers is read until a
tensor is asked for. Where in a model it all belongs: `matching.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from library.models.weights import TensorFile, open_tensors, read_header
from library.network.adapters import CONFIG, Adapter, network_files, read_adapters
from library.network.family import Shapes, Told, family_told
from library.network.kinds import KINDS
from library.network.layer_names import dotted, settled
from library.network.recognition import kind_of
from library.network.spellings import BUNDLED, Spelled, read_keys
from library.problems import UserError, warn

if TYPE_CHECKING:
    from torch import Tensor

ALPHA = "alpha"
_PEFT = "base_model.model."  # how PEFT's keys begin


@dataclass(frozen=True)
class Place:
    """Where a tensor is.

    file: the file.
    key: its key there.
    shape: the shape that it is read in.
    """

    file: Path
    key: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class NetworkFile:
    """A network file before its tensors are read. No torch is needed until then.

    path: the file, or a folder of PEFT's or diffusers'.
    kind: the kind of network, a name in KINDS.
    modules: by a module's name, the shapes of its tensors by their names, all as sd-scripts has them.
    unknown: keys that are no tensors of this kind, with their shapes.
    bundled: keys of embeddings that are kept in the file beside the network.
    metadata: what it says about itself; empty for formats that have no place for it.
    told: which family it says it is for.
    places: where each tensor is, by `<module>.<tensor>`; bundled embeddings by their keys.
    beside: alphas that are not among the tensors but in settings beside them, by module.
    along: keys of another kind that goes along with this one, with their shapes.
    is_along: whether this kind is the one that goes along: what else the file holds is read as another.
    """

    path: Path
    kind: str
    modules: Mapping[str, Shapes]
    unknown: Shapes
    metadata: Mapping[str, str]
    bundled: Shapes = field(default_factory=dict)
    told: Told | None = None
    places: Mapping[str, Place] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)
    along: Shapes = field(default_factory=dict)
    is_along: bool = False

    @property
    def ranks(self) -> dict[str, int]:
        """Each module's rank, where the kind has one."""
        rank = KINDS[self.kind].rank
        shapes = {} if rank is None else self._shapes_of(rank)
        return {name: shape[0] for name, shape in shapes.items()}

    def alphas(self) -> dict[str, float]:
        """Each module's alpha, where it has one; one that is missing is the rank. Reads them."""
        given = {name: float(self.read(name, ALPHA)) for name in self._shapes_of(ALPHA)}
        return {name: float(rank) for name, rank in self.ranks.items()} | dict(self.beside) | given

    def read(self, module: str, tensor: str) -> Tensor:
        """One tensor, by the names in `modules`."""
        return self._read(f"{module}.{tensor}")

    def read_bundled(self) -> dict[str, Tensor]:
        """The embeddings beside the network, by their keys."""
        return {key: self._read(key) for key in self.bundled}

    def _read(self, key: str) -> Tensor:
        place = self.places[key]
        return self._files[place.file].read(place.key).reshape(place.shape)

    @cached_property
    def _files(self) -> dict[Path, TensorFile]:
        return {file: open_tensors(file) for file in {place.file for place in self.places.values()}}

    def _shapes_of(self, tensor: str) -> dict[str, tuple[int, ...]]:
        """The shape of the tensor of this name in each module that has it."""
        return {name: shapes[tensor] for name, shapes in self.modules.items() if tensor in shapes}


def kind_in(path: Path) -> str:
    """The kind of network in a file, a name in KINDS. Raises UserError as `read_network` when it has none."""
    places = _open(path).places
    return kind_of(path, places, read_keys(places), None)


def has_whole_changes(path: Path) -> bool:
    """Whether a file has modules of a kind that goes along with others."""
    return any(_goes_along(spelled) for spelled in read_keys(_open(path).places).values())


def read_network(path: Path, kind: str | None = None) -> NetworkFile:
    """What a network file holds. kind: the only one that is wanted, a name in KINDS; None: any of them.

    Raises UserError when the file cannot be read, is of another kind or of none that is known, or mixes
    kinds.
    """
    content = _open(path)
    spelled = read_keys(content.places)
    name = kind_of(path, content.places, spelled, kind)
    row, tensors = KINDS[name], KINDS[name].tensors
    own = {
        key: _Entry(found.module, found.tensor, replace(place, shape=found.reshape(place.shape)))
        for key, place in content.places.items()
        if (found := spelled.get(key)) is not None and found.tensor in tensors
    }
    told = family_told(_modules(own.values()), content.metadata)
    family = None if told is None else told.family
    own = {key: replace(entry, module=settled(entry.module, family)) for key, entry in own.items()}
    _check(path, own, row.rank)
    others = {key: place for key, place in content.places.items() if key not in own}
    is_along = row.goes_along and any(not _goes_along(found) for found in spelled.values())
    others = {} if is_along else others
    bundled = {key: place for key, place in others.items() if key.startswith(BUNDLED)}
    along = {
        key: place.shape for key, place in others.items() if key in spelled and _goes_along(spelled[key])
    }
    return NetworkFile(
        path=path,
        kind=name,
        modules=_modules(own.values()),
        unknown={key: place.shape for key, place in others.items() if key not in bundled | along},
        metadata=content.metadata,
        bundled={key: place.shape for key, place in bundled.items()},
        told=told,
        places={f"{entry.module}.{entry.tensor}": entry.place for entry in own.values()} | bundled,
        beside=_alphas_beside(content, own, row.rank),
        along=along,
        is_along=is_along,
    )


@dataclass(frozen=True)
class _Content:
    """Everything in a file or folder: tensors by their keys, metadata, and PEFT's settings by how the keys
    begin that they are about.
    """

    places: dict[str, Place]
    metadata: dict[str, str]
    adapters: dict[str, Adapter]


@dataclass(frozen=True)
class _Entry:
    """A tensor of the network, by its names here."""

    module: str
    tensor: str
    place: Place


def _open(path: Path) -> _Content:
    content = _Content({}, {}, {})
    for beginning, file in network_files(path).items():
        header = read_header(file)
        content.metadata.update(header.metadata)
        for key in header.shapes or header.names:
            content.places[beginning + key] = Place(file, key, header.shapes.get(key, ()))
        for own, adapter in read_adapters(file, header.metadata).items():
            content.adapters[beginning + own] = adapter
    return content


def _goes_along(spelled: Spelled) -> bool:
    """Whether a key is of a kind that goes along with others."""
    return any(spelled.tensor in kind.tensors for kind in KINDS.values() if kind.goes_along)


def _modules(entries: Iterable[_Entry]) -> dict[str, Shapes]:
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for entry in entries:
        found.setdefault(entry.module, {})[entry.tensor] = entry.place.shape
    return dict(found)


def _check(path: Path, entries: Mapping[str, _Entry], rank: str | None) -> None:
    """Raises UserError when two keys are spellings of one, or when a module has no rank."""
    seen: dict[tuple[str, str], str] = {}
    for key, entry in entries.items():
        name, shape = (entry.module, entry.tensor), entry.place.shape
        if name in seen:
            raise UserError.of(path, f"{seen[name]} and {key} are one tensor in two programs' spellings")
        if entry.tensor == rank and (len(shape) < 2 or shape[0] == 0):
            raise UserError.of(path, f"{key} has no rank: its shape is {shape}", "get the file again")
        seen[name] = key


def _alphas_beside(content: _Content, entries: Mapping[str, _Entry], rank: str | None) -> dict[str, float]:
    """The alpha of each module that has none in the file but in settings of PEFT's."""
    inside = {entry.module for entry in entries.values() if entry.tensor == ALPHA}
    found: dict[str, float] = {}
    for key, entry in entries.items():
        if entry.tensor != rank or entry.module in inside:
            continue
        adapter = next((one for begin, one in content.adapters.items() if key.startswith(begin)), None)
        if adapter is not None:
            found[entry.module] = adapter.alpha_of(dotted(entry.module), entry.place.shape[0])
    if not inside and not content.adapters and any(key.startswith(_PEFT) for key in entries):
        file = next(iter(content.places.values())).file
        warn(f"{file}: there is no {CONFIG} beside it, which would say its alpha: taken as the rank")
    return found
