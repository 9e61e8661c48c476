"""Files and folders of SD 1.x -> each part's tensors under Diffusers names, and what their configs say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from library.models.base import PredictionType
from library.models.sd.configs import CONFIG_KEY, STANDARD
from library.models.sd.keys import (
    PREFIXES,
    current_vae_name,
    text_name,
    to_diffusers,
    unet_rows,
    unet_structure,
    vae_rows,
    vae_structure,
)
from library.models.sources import WEIGHT_STEMS, Source, find_weights, read_json, vae_folder
from library.models.weights import TensorFile, open_tensors
from library.problems import UserError

_PREDICTION_NAMES: dict[str, PredictionType] = {
    "epsilon": "epsilon",
    "v": "v",
    "v_prediction": "v",
    "flow": "flow",
}


@dataclass(frozen=True)
class PartFile:
    """One part's tensors, before they are read.

    names: Diffusers name -> name in the file. given: what a config says that weights cannot tell.
    """

    file: TensorFile
    names: dict[str, str]
    given: Mapping[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By Diffusers name, as in the file."""
        return {name: self.file.shapes[in_file] for name, in_file in self.names.items()}

    def read(self, name: str) -> Tensor:
        """A tensor by its Diffusers name."""
        return self.file.read(self.names[name])


@dataclass(frozen=True)
class ModelFiles:
    """A whole model's parts, before any tensor is read."""

    parts: dict[str, PartFile]
    prediction_type: PredictionType | None
    epoch: int = 0
    global_step: int = 0


def read_model(source: Source) -> ModelFiles:
    """The parts of a single file or a Diffusers folder. Raises UserError for damaged files."""
    return _read_folder(source) if source.kind == "diffusers" else _read_file(source.path)


def read_vae(source: Source) -> PartFile:
    """A VAE from a VAE file of original or Diffusers names, a checkpoint, or a folder."""
    if source.kind == "diffusers":
        path = find_weights(vae_folder(source.path), WEIGHT_STEMS["vae"], source.variant)
        assert path is not None  # check_vae found it
        return _folder_part(path, "vae")
    file, prefix = open_tensors(source.path), PREFIXES["vae"]
    has_prefix = any(name.startswith(prefix) for name in file.shapes)
    return _named_part(file, "vae", prefix if has_prefix else "", _own_config(file).get("vae", {}))


def _read_file(path: Path) -> ModelFiles:
    file = open_tensors(path)
    config = _own_config(file)
    parts = {part: _named_part(file, part, prefix, config.get(part, {})) for part, prefix in PREFIXES.items()}
    _refuse_foreign(parts["unet"], PREFIXES["unet"])
    named = file.metadata.get("modelspec.prediction_type") or config.get("prediction_type")
    return ModelFiles(
        parts,
        _PREDICTION_NAMES.get(str(named)),
        epoch=_number(file.metadata.get("epoch")),
        global_step=_number(file.metadata.get("global_step")),
    )


def _read_folder(source: Source) -> ModelFiles:
    parts = {part: _folder_part(source.weights(part), part) for part in PREFIXES}
    scheduler = read_json(source.path / "scheduler" / "scheduler_config.json")
    named = "flow" if "Flow" in scheduler.get("_class_name", "") else scheduler.get("prediction_type")
    return ModelFiles(parts, _PREDICTION_NAMES.get(str(named)))


def _folder_part(weights: Path, part: str) -> PartFile:
    return _named_part(open_tensors(weights), part, "", read_json(weights.parent / "config.json"))


def _named_part(file: TensorFile, part: str, prefix: str, given: Mapping[str, Any]) -> PartFile:
    """A part's tensors under Diffusers names, whatever they are called in the file."""
    inner = [name.removeprefix(prefix) for name in file.shapes if name.startswith(prefix)]
    return PartFile(file, {new: prefix + old for old, new in _diffusers_names(part, inner).items()}, given)


def _diffusers_names(part: str, names: list[str]) -> dict[str, str]:
    """name in the file (without prefix) -> Diffusers name. Names of other things are left out."""
    if part == "text_encoder":
        return {name: new for name in names if (new := text_name(name)) is not None}
    if any(name.startswith(("down_blocks.", "encoder.down_blocks.")) for name in names):
        return {name: current_vae_name(name) if part == "vae" else name for name in names}
    if part == "vae":
        return to_diffusers(names, vae_rows(vae_structure(names)))
    return to_diffusers(names, unet_rows(unet_structure(set(names))))


def _refuse_foreign(unet: PartFile, prefix: str) -> None:
    """A U-Net with more in it than the layout has is another kind of model: it computes something else."""
    foreign = {name for name in unet.file.shapes if name.startswith(prefix)} - set(unet.names.values())
    if foreign:
        raise UserError.of(
            unet.file.path, f"its U-Net is not one of SD 1.x ({min(foreign)} has no place there)"
        )


def _own_config(file: TensorFile) -> dict[str, Any]:
    """What we wrote beside the weights, or {}. Raises UserError when it is damaged."""
    try:
        config = json.loads(file.metadata.get(CONFIG_KEY, "{}"))
    except ValueError:
        config = None
    if not isinstance(config, dict) or not all(isinstance(config.get(part, {}), dict) for part in STANDARD):
        raise UserError.of(file.path, f"its metadata {CONFIG_KEY} is damaged", "get the file again")
    return config


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
