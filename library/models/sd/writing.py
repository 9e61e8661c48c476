"""An SD 1.x model as a Diffusers folder."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from library.files import whole_folder
from library.models.base import PredictionType
from library.models.noise_schedule import DDIM_CONFIG, TRAIN_STEPS
from library.models.sources import WEIGHT_STEMS
from library.models.text import TOKENIZER_FILES, TOKENIZER_FOLDER
from library.models.weights import save_tensors

if TYPE_CHECKING:
    from library.models.sd.model import StableDiffusion


def save_folder(
    model: StableDiffusion, path: Path, parts: Mapping[str, dict[str, Tensor]], *, safetensors: bool
) -> None:
    """Write a folder that diffusers' StableDiffusionPipeline.from_pretrained loads, whole.

    parts: "unet", "vae" and "text_encoder", tensors under Diffusers names. safetensors: the weights'
    container; else .bin.
    """
    with whole_folder(path) as folder:
        for part, tensors in parts.items():
            (folder / part).mkdir()
            save_tensors(folder / part / _weight_name(part, safetensors), tensors, {"format": "pt"})
        model.denoiser.save_config(folder / "unet")
        model.vae.save_config(folder / "vae")
        _save_text_config(model.text_encoders[0], folder / "text_encoder")
        _save_tokenizer(folder / "tokenizer")
        scheduler = _save_scheduler(folder / "scheduler", model.prediction_type)
        (folder / "model_index.json").write_text(json.dumps(_index(scheduler), indent=2), encoding="utf-8")


def _weight_name(part: str, safetensors: bool) -> str:
    if safetensors:
        return f"{WEIGHT_STEMS[part]}.safetensors"
    return "pytorch_model.bin" if part == "text_encoder" else f"{WEIGHT_STEMS[part]}.bin"


def _save_text_config(text_encoder: nn.Module, folder: Path) -> None:
    config = copy.deepcopy(text_encoder.config)
    config.architectures = [type(text_encoder).__name__]
    config.save_pretrained(folder)


def _save_tokenizer(folder: Path) -> None:
    folder.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copyfile(TOKENIZER_FOLDER / name, folder / name)


def _save_scheduler(folder: Path, prediction_type: PredictionType) -> str:
    """Its published settings and no more, so that other samplers keep their own. Returns the class name."""
    import diffusers

    name, settings = "DDIMScheduler", DDIM_CONFIG | {"prediction_type": "epsilon"}
    if prediction_type == "v":
        settings["prediction_type"] = "v_prediction"
    if prediction_type == "flow":
        name, settings = "FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": TRAIN_STEPS}
    config = {"_class_name": name, "_diffusers_version": diffusers.__version__, **settings}
    folder.mkdir()
    (folder / "scheduler_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return name


def _index(scheduler: str) -> dict[str, object]:
    import diffusers

    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
