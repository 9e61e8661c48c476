"""What a model's files say about how it predicts: the noise (epsilon), v or flow. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Literal

from library.models.sources import Source, read_json
from library.models.weights import read_header
from library.problems import UserError

PredictionType = Literal["epsilon", "v", "flow"]

# Metadata key of a .safetensors, or entry of a .ckpt: a JSON object of what cannot be read from weights.
CONFIG_KEY = "atelier.config"

_NAMES: dict[str, PredictionType] = {"epsilon": "epsilon", "v": "v", "v_prediction": "v", "flow": "flow"}
_WORDS = {"epsilon": "the noise", "v": "v", "flow": "flow"}
# A tensor of this name, whatever its content, declares v in single files without metadata.
_V_MARK = "v_pred"
_TERMINAL_MARK = "ztsnr"  # likewise: the last timestep is pure noise


def declared_prediction(source: Source) -> PredictionType | None:
    """What a file's metadata or a folder's scheduler declares; None if they declare nothing."""
    if source.kind != "diffusers":
        header = read_header(source.path)
        return _of_file(header.names, header.metadata)
    scheduler = read_json(source.path / "scheduler" / "scheduler_config.json")
    named = "flow" if "Flow" in scheduler.get("_class_name", "") else scheduler.get("prediction_type")
    return _NAMES.get(str(named))


def declares_zero_terminal_snr(source: Source) -> bool:
    """Whether a file or folder declares that the model was trained with pure noise at the last timestep."""
    if source.kind == "diffusers":
        scheduler = read_json(source.path / "scheduler" / "scheduler_config.json")
        return scheduler.get("rescale_betas_zero_snr") is True
    header = read_header(source.path)
    own = _own(header.metadata.get(CONFIG_KEY, "{}"), "zero_terminal_snr")
    return own is True or _TERMINAL_MARK in header.names


def check_claim(source: Source, claimed: PredictionType) -> None:
    """Raises UserError when a model's files contradict what the user claims it predicts."""
    said = declared_prediction(source)
    if said not in (None, claimed):
        cause = f"{source.name} says that it predicts {_WORDS[said]}"
        fix = "leave it out; --objective v trains any model to predict v"
        raise UserError.of(f"--{claimed}_parameterization", cause, fix)


def _of_file(names: Collection[str], metadata: Mapping[str, str]) -> PredictionType | None:
    """From the declared prediction type, else from an architecture in -v (stable-diffusion-v2-768-v)."""
    named = (
        metadata.get("modelspec.prediction_type")
        or metadata.get("modelspec.predict_key")  # ComfyUI's
        or _own(metadata.get(CONFIG_KEY, "{}"), "prediction_type")
    )
    if named in _NAMES:
        return _NAMES[named]
    is_v = metadata.get("modelspec.architecture", "").endswith("-v")
    return "v" if is_v or _V_MARK in names else None


def _own(config: str, name: str) -> Any:
    """A value of our own metadata; None if there is none."""
    try:
        return json.loads(config).get(name)
    except (ValueError, AttributeError):
        return None  # damaged metadata is reported when the model is read
