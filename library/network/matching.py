"""Where in a model the modules of a network file belong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from library.models.families import FAMILIES
from library.models.values import fault_of, refuse_faults
from library.network.family import Shapes
from library.network.files import ALPHA, NetworkFile, read_network
from library.network.kinds import KINDS, NUMBERS, FileKind
from library.network.names import module_name, points_by_name
from library.network.sizes import Size
from library.problems import UserError, warn

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from library.models.base import AttachPoint, Model

# What names are, probably, that no layer of a model answers to: the first that fits. {} is its family.
_PROBABLY = (
    (r"lora_te2_", "layers of a second text encoder, which {} does not have"),
    (r"lora_te3_", "layers of a third text encoder, which {} does not have"),
    (r"lora_te_", "layers of a text encoder in names that {} does not have"),
    (r"lora_te1_", "layers that the text encoder does not have"),
    (r".*_norm\d?(_|$)|.*_norm_out|.*layer_norm", "norms, whose changes this kind does not hold"),
    (r"lora_unet_(label_emb|add_embedding)", "the embedding of sizes, which {} does not have"),
    (r"(lora|lllite)_unet_(down|up|mid|input|output|middle)_block", "blocks of a U-Net of another structure"),
    (r"(lora_)?transformer[_.]|lora_unet_(double|single|joint)_blocks", "layers of a transformer"),
)
# The same of tensors that the kind does not have.
_PROBABLY_TENSORS = (
    (r".*\.dora_scale$", "magnitudes of DoRA"),
    (r".*\.reshape_weight$", "another shape of a layer"),
    (r".*\.lora_mid\.weight$", "middle factors (Tucker)"),
    (r".*\.bias$", "biases"),
    (r".*\.scaled_oft$", "OneTrainer's marks of scaled rotations"),
)
WHOLE_CHANGES = "whole changes of weights, biases or norms"
_NOBODY = "names that nobody is known to write"


@dataclass(frozen=True)
class MatchedFile:
    """A network file whose modules have found their layers in a model.

    kind: the kind of network.
    points: where each module stands, by the name that our files have for it, sorted.
    modules: by the same names, each one's tensors; an alpha that is missing or 0 is filled in.
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


def read_for(model: Model, path: Path, kind: str | None = None) -> MatchedFile:
    """A network file for a model. kind: as for `read_network`. What no layer answers to is left out with a
    warning, by what it probably is.

    Raises UserError when it cannot be read, is not whole, holds values that no weights have, is for another
    family or has nothing for this model.
    """
    found = read_network(path, kind)
    row = KINDS[found.kind]
    check_whole(found)
    norms = model.norm_points() if row.goes_along else []
    points = points_by_name([*model.attach_points(), *model.outer_points(), *norms], row.prefix)
    _check_family(found, model, points)
    known = [name for name in found.modules if name in points]
    named = {name: module_name(points[name], row.prefix, is_original=row.is_original) for name in known}
    _check_doubles(found, known, points)
    _tell_of_rest(found, model, known)
    read = {name: {tensor: found.read(name, tensor) for tensor in found.modules[name]} for name in known}
    _check_values(path, read)
    modules = {
        named[name]: {
            tensor: value.reshape(()) if tensor in NUMBERS else value for tensor, value in tensors.items()
        }
        for name, tensors in read.items()
    }
    if row.rank is not None and ALPHA in row.tensors:
        beside = {named[name]: found.beside.get(name) for name in known}
        _fill_alphas(path, modules, row.rank, beside)
    at = {named[name]: points[name] for name in known}
    return MatchedFile(row, {name: at[name] for name in sorted(modules)}, modules)


def check_whole(found: NetworkFile) -> None:
    """Raises UserError when a module lacks a tensor that its kind has to have."""
    row = KINDS[found.kind]
    missing = sorted(
        f"{name}.{tensor}"
        for name, shapes in found.modules.items()
        for tensor in row.needs
        if tensor not in shapes
    )
    if missing:
        raise UserError.of(found.path, f"{len(missing)} tensors are missing, e.g. {missing[0]}")


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


def unplaced(found: NetworkFile, known: Iterable[str], title: str) -> dict[str, list[str]]:
    """What a file holds besides the modules that found a layer, as far as names tell it.

    title: of the model's family.
    Returns keys by what they probably are.
    """
    groups: dict[str, list[str]] = {}
    placed = set(known)
    for name, shapes in found.modules.items():
        if name not in placed:
            groups.setdefault(_probably(name, _PROBABLY).format(title), []).extend(
                f"{name}.{tensor}" for tensor in shapes
            )
    for key in found.unknown:
        groups.setdefault(_probably(key, _PROBABLY_TENSORS), []).append(key)
    if found.along:
        groups[WHOLE_CHANGES] = list(found.along)
    if found.bundled:
        groups["embeddings that go with it"] = list(found.bundled)
    return groups


def _probably(name: str, table: Iterable[tuple[str, str]]) -> str:
    return next((what for pattern, what in table if re.match(pattern, name)), _NOBODY)


def _check_family(found: NetworkFile, model: Model, points: Mapping[str, AttachPoint]) -> None:
    """Raises UserError when nothing fits, or when the file says that it is for another family and not all of
    it fits. Its word alone is not believed: metadata may be wrong.
    """
    fits = found.modules.keys() & points.keys()
    told, family = found.told, FAMILIES[model.family]
    if (
        told is not None
        and told.family != model.family
        and (len(fits) < len(found.modules) or _is_by_width(found))
    ):
        cause = f"is for {told.title} ({told.sign}), this model is {family.title}"
        raise UserError.of(found.path, cause, f"use a network that was made for {family.title}")
    foreign = sorted(
        f"{name}.{tensor}" for name, own in found.modules.items() if name not in fits for tensor in own
    )
    nowhere = not fits and not found.is_along
    if nowhere or (foreign and KINDS[found.kind].fits_whole):
        what = _probably(foreign[0], _PROBABLY).format(family.title)
        cause = f"{len(foreign)} of its tensors have no place in this model, e.g. {foreign[0]}"
        raise UserError.of(found.path, cause, f"they are probably {what}" if what != _NOBODY else "")


def _check_doubles(found: NetworkFile, known: Iterable[str], points: Mapping[str, AttachPoint]) -> None:
    """Raises UserError when two of a file's modules stand at one layer."""
    at: dict[AttachPoint, str] = {}
    for name in known:
        if points[name] in at:
            raise UserError.of(found.path, f"{at[points[name]]} and {name} are two names of one layer")
        at[points[name]] = name


def _is_by_width(found: NetworkFile) -> bool:
    return found.told is not None and found.told.sign.startswith("text of width")


def _tell_of_rest(found: NetworkFile, model: Model, known: Iterable[str]) -> None:
    found = replace(found, along={})  # whoever reads a network reads these too, or tells of it
    for what, keys in unplaced(found, known, FAMILIES[model.family].title).items():
        warn(f"{found.path}: {len(keys)} of its tensors are left out, e.g. {min(keys)}: {what}")


def _fill_alphas(
    path: Path,
    modules: Mapping[str, dict[str, Tensor]],
    rank: str,
    beside: Mapping[str, float | None],
) -> None:
    """Put an alpha where there is none, and where it is 0, which trainers read as the rank."""
    import torch

    zeros = [name for name, tensors in modules.items() if ALPHA in tensors and not float(tensors[ALPHA])]
    for name, tensors in modules.items():
        if rank in tensors and (ALPHA not in tensors or name in zeros):
            given = beside[name] if ALPHA not in tensors else None
            tensors[ALPHA] = torch.tensor(float(given or tensors[rank].shape[0]))
    if zeros:
        warn(f"{path}: alpha is 0 in {len(zeros)} modules, e.g. {min(zeros)}: read as the rank: scale 1")


def _check_values(path: Path, modules: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raises UserError for tensors that hold what they cannot."""
    faults = {}
    for name, tensors in modules.items():
        for tensor, value in tensors.items():
            fault = number_fault(tensor, value) if tensor in NUMBERS else fault_of(value)
            if fault:
                faults[f"{name}.{tensor}"] = fault
    refuse_faults(path, faults)


def number_fault(tensor: str, value: Tensor) -> str:
    """What is wrong with a tensor of NUMBERS: programs write it as one number of any real type."""
    is_number = value.numel() == 1 and not value.is_complex() and isfinite(float(value))
    return "" if is_number else f"an {tensor} that is no number"
