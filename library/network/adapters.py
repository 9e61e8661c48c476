"""Networks of PEFT and diffusers: folders instead of files, and settings that stand beside the tensors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.models.sources import read_json
from library.problems import UserError

CONFIG = "adapter_config.json"
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin", *_ADAPTERS)
_PARTS = ("unet", "text_encoder", "text_encoder_2")  # the folders of a part's adapter
METADATA = "lora_adapter_metadata"  # diffusers keeps the same settings in its files, by part
# Starts that subtract what they begin with from the model's own weights: their factors are right only there.
_CHANGES_MODEL = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Adapter:
    """What PEFT says of an adapter beside its tensors.

    alpha: of its modules; None: as their rank.
    alphas: of modules whose path ends so (a regular expression).
    has_root_scale: the scale is alpha / sqrt(rank) (rsLoRA).
    start: what its values began as; "" for an ordinary start.
    """

    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    has_root_scale: bool = False
    start: str = ""

    def alpha_of(self, path: str, rank: int) -> float:
        """The alpha that gives a module's scale as alpha / rank. path: of its layer, dotted."""
        own = (alpha for end, alpha in self.alphas.items() if re.fullmatch(rf"(?:.*\.)?{end}", path))
        alpha = next(own, self.alpha)
        if alpha is None:
            return float(rank)
        return alpha * math.sqrt(rank) if self.has_root_scale else alpha


def network_files(path: Path) -> dict[str, Path]:
    """The files of a network: how keys begin that stand in each -> the file.

    path: a file, or a folder of PEFT's or diffusers', which may have one for each part of the model.
    Raises UserError for a folder without a network.
    """
    if not path.is_dir():
        return {"": path}
    if (whole := _first_there(path, _FILES)) is not None:
        return {"": whole}
    parts = {f"{part}.": _first_there(path / part, _ADAPTERS) for part in _PARTS}
    found = {beginning: file for beginning, file in parts.items() if file is not None}
    if not found:
        cause = f"is a folder without a network: it has neither {_ADAPTERS[0]} nor {_FILES[0]}"
        raise UserError.of(path, cause, "give the file of the network")
    return found


def read_adapters(file: Path, metadata: Mapping[str, str]) -> dict[str, Adapter]:
    """What is said beside the tensors of a file: by how the keys begin that it is about; "" is all.

    Raises UserError when it cannot be read, or when the tensors are right only for a model that was changed.
    """
    found: dict[str, Adapter] = {}
    if file.name in _ADAPTERS:
        config = read_json(file.parent / CONFIG)
        if config:
            found[""] = _adapter(file.parent / CONFIG, config)
    if METADATA in metadata:
        for part, config in _by_part(file, metadata[METADATA]).items():
            found[f"{part}."] = _adapter(file, config)
    for adapter in found.values():
        if adapter.start.startswith(_CHANGES_MODEL):
            cause = f"was started with {adapter.start}, so it fits only a model changed by the same start"
            raise UserError.of(
                file, cause, "save it with PEFT's path_initial_model_for_weight_conversion, as a plain LoRA"
            )
    return found


def _first_there(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _by_part(file: Path, text: str) -> dict[str, dict[str, Any]]:
    """diffusers' metadata: {"unet.r": 4, "text_encoder.r": 4, ...} -> the settings of each part."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError.of(file, f"{METADATA} in its metadata is not valid JSON") from error
    found: dict[str, dict[str, Any]] = {}
    for key, value in given.items() if isinstance(given, dict) else ():
        part, dot, name = key.partition(".")
        if dot:
            found.setdefault(part, {})[name] = value
    return found


def _adapter(where: Path, config: Mapping[str, Any]) -> Adapter:
    """From PEFT's settings. LoRAs call it lora_alpha, LoHa and LoKr alpha."""
    patterns = config.get("alpha_pattern") or {}
    alpha = config.get("lora_alpha", config.get("alpha"))
    values = [*(patterns.values() if isinstance(patterns, dict) else [None]), *([alpha] if alpha else [])]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise UserError.of(where, "has an alpha that is no number", "get the file again")
    try:
        for end in patterns:
            re.compile(end)
    except re.error as error:
        raise UserError.of(where, f"alpha_pattern has a wrong pattern: {error}") from error
    start = config.get("init_lora_weights")
    return Adapter(
        alpha=float(alpha) if alpha else None,
        alphas=patterns,
        has_root_scale=config.get("use_rslora") is True,
        start=start if isinstance(start, str) else "",
    )
