"""Files and folders of SD 1.x -> the tensors of each part under Diffusers names, and what their configs say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from library.models import vae_folder
from library.models.base import PredictionType
from library.models.sd.configs import CONFIG_KEY
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
from library.models.sources import WEIGHT_STEMS, Source, find_weights, read_json
from library.models.weights import TensorFile, open_tensors
from library.problems import UserError

_PREDICTION_NAMES = {"epsilon": "epsilon", "v": "v", "v_prediction": "v", "flow": "flow"}


@dataclass
class PartFile:
    """One part's tensors. shapes: by Diffusers name, as in the file. given: what a config says beside
    weights.
    """

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    given: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelFiles:
    """A whole model's parts, before any tensor is read."""

    parts: dict[str, PartFile]
    prediction_type: PredictionType | None
    epoch: int = 0
    global_step: int = 0


def read_model(source: Source) -> ModelFiles:
    """The parts of a single file or a Diffusers folder. Raises UserError when something is missing or
    damaged.
    """
    return _read_folder(source.path) if source.kind == "diffusers" else _read_file(source.path)


def read_vae(source: Source) -> PartFile:
    """A VAE from a VAE file, a checkpoint or a folder."""
    if source.kind == "diffusers":
        return _folder_part(vae_folder(source.path), "vae")
    file = open_tensors(source.path)
    given = _own_config(file).get("vae", {})
    prefix = PREFIXES["vae"]
    has_prefix = any(name.startswith(prefix) for name in file.shapes)
    return _part_of_file(file, "vae", prefix if has_prefix else "", given)


def _read_file(path: Path) -> ModelFiles:
    file = open_tensors(path)
    config = _own_config(file)
    parts = {
        part: _part_of_file(file, part, prefix, config.get(part, {})) for part, prefix in PREFIXES.items()
    }
    named = config.get("prediction_type", file.metadata.get("modelspec.prediction_type", ""))
    return ModelFiles(
        parts,
        _PREDICTION_NAMES.get(named),
        epoch=_number(file.metadata.get("epoch")),
        global_step=_number(file.metadata.get("global_step")),
    )


def _read_folder(folder: Path) -> ModelFiles:
    parts = {part: _folder_part(folder / part, part) for part in PREFIXES}
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    named = "flow" if "Flow" in scheduler.get("_class_name", "") else scheduler.get("prediction_type", "")
    return ModelFiles(parts, _PREDICTION_NAMES.get(named))


def _folder_part(folder: Path, part: str) -> PartFile:
    path = find_weights(folder, WEIGHT_STEMS[part])
    if path is None:
        raise UserError.of(folder, f"holds no weights ({WEIGHT_STEMS[part]}.safetensors or .bin)")
    return _named_part(open_tensors(path), part, "", read_json(folder / "config.json"))


def _part_of_file(file: TensorFile, part: str, prefix: str, given: dict[str, Any]) -> PartFile:
    found = _named_part(file, part, prefix, given)
    if not found.shapes:
        raise UserError.of(file.path, f"has no {part.replace('_', ' ')}", "use a full checkpoint")
    return found


def _named_part(file: TensorFile, part: str, prefix: str, given: dict[str, Any]) -> PartFile:
    """A part's tensors under Diffusers names, whatever they are called in the file."""
    inner = [name.removeprefix(prefix) for name in file.shapes if name.startswith(prefix)]
    try:
        names = _diffusers_names(part, inner)
    except (ZeroDivisionError, KeyError):  # no level or layer was found
        names = {}
    shapes = {new: file.shapes[prefix + old] for old, new in names.items()}
    in_file = {new: prefix + old for old, new in names.items()}
    return PartFile(shapes, lambda name: file.read(in_file[name]), given)


def _diffusers_names(part: str, names: list[str]) -> dict[str, str]:
    """name in the file (without prefix) -> Diffusers name. Names of other things are left out."""
    if part == "text_encoder":
        canonical = {name: text_name(name) for name in names}
        return {name: new for name, new in canonical.items() if new is not None}
    if any(name.startswith(("down_blocks.", "encoder.down_blocks.")) for name in names):
        return (
            {name: current_vae_name(name) for name in names}
            if part == "vae"
            else {name: name for name in names}
        )
    if part == "vae":
        return to_diffusers(names, vae_rows(vae_structure(names)))
    return to_diffusers(names, unet_rows(unet_structure(set(names))))


def _own_config(file: TensorFile) -> dict[str, Any]:
    """What we wrote beside the weights, or {}."""
    try:
        config = json.loads(file.metadata.get(CONFIG_KEY, "{}"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
