"""What a model's files say about how it predicts: the noise (epsilon), v or flow. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from library.models.sources import Source, read_json
from library.models.weights import read_header
from library.problems import UserError

PredictionType = Literal["epsilon", "v", "flow"]

# Metadata key of a .safetensors, or entry of a .ckpt: a JSON object of what cannot be read from weights.
CONFIG_KEY = "atelier.config"

_NAMES: dict[str, PredictionType] = {"epsilon": "epsilon", "v": "v", "v_prediction": "v", "flow": "flow"}
_WORDS = {"epsilon": "the noise", "v": "v", "flow": "flow"}
# Diffusers' names for what no model here learns to predict.
_FOREIGN = {"sample": "the picture itself", "x0": "the picture itself"}
# Tensors whose names alone, whatever their content, declare in single files what a model predicts and that
# its last timestep is pure noise. Programs that draw (ComfyUI, AUTOMATIC1111, Forge) look for them in files
# of SD 1.x and SDXL.
V_MARK = "v_pred"
TERMINAL_MARK = "ztsnr"


def declared_prediction(source: Source) -> PredictionType | None:
    """What a file's metadata or a folder's scheduler declares; None if they declare nothing.

    Raises UserError when that is something that is not trained here.
    """
    if source.kind != "diffusers":
        header = read_header(source.path)
        return _of_file(source, header.names, header.metadata)
    scheduler = read_scheduler(source.path)
    is_flow = "Flow" in str(scheduler.get("_class_name", ""))
    return _named(source, "flow" if is_flow else str(scheduler.get("prediction_type")))


def declares_zero_terminal_snr(source: Source) -> bool:
    """Whether a file or folder declares that the model was trained with pure noise at the last timestep."""
    if source.kind == "diffusers":
        return read_scheduler(source.path).get("rescale_betas_zero_snr") is True
    header = read_header(source.path)
    own = _own(header.metadata.get(CONFIG_KEY, "{}"), "zero_terminal_snr")
    return own is True or TERMINAL_MARK in header.names


def read_scheduler(folder: Path) -> dict[str, Any]:
    """The scheduler's settings of a Diffusers folder; {} when it has none."""
    return read_json(folder / "scheduler" / "scheduler_config.json")


def check_claim(source: Source, claimed: PredictionType) -> None:
    """Raises UserError when a model's files contradict what the user claims it predicts."""
    said = declared_prediction(source)
    if said not in (None, claimed):
        cause = f"{source.name} says that it predicts {_WORDS[said]}"
        fix = "leave it out; --objective v trains any model to predict v"
        raise UserError.of(f"--{claimed}_parameterization", cause, fix)


def _of_file(source: Source, names: Collection[str], metadata: Mapping[str, str]) -> PredictionType | None:
    """From the declared prediction type, else from an architecture in -v (stable-diffusion-v2-768-v)."""
    named = (
        metadata.get("modelspec.prediction_type")
        or metadata.get("modelspec.predict_key")  # ComfyUI's
        or _own(metadata.get(CONFIG_KEY, "{}"), "prediction_type")
    )
    if found := _named(source, str(named)):
        return found
    is_v = metadata.get("modelspec.architecture", "").endswith("-v")
    return "v" if is_v or V_MARK in names else None


def _named(source: Source, name: str) -> PredictionType | None:
    """What files call a kind of prediction; None for words of no known meaning."""
    if name in _FOREIGN:
        cause = f"says that it predicts {_FOREIGN[name]} ({name}), which is not trained here"
        raise UserError.of(source.name, cause)
    return _NAMES.get(name)


def _own(config: str, name: str) -> Any:
    """A value of our own metadata; None if there is none."""
    try:
        return json.loads(config).get(name)
    except (ValueError, AttributeError):
        return None  # damaged metadata is reported when the model is read
