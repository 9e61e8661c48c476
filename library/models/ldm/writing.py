"""A model as a Diffusers folder."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from library.files import whole_folder
from library.models.base import Part
from library.models.ldm.layout import Layout
from library.models.noise_schedule import TRAIN_STEPS, terminal_settings
from library.models.prediction import PredictionType
from library.models.shards import index_names, index_of, shard_names, shares
from library.models.sources import WEIGHT_STEMS
from library.models.text import EOS, TOKENIZER_FILES, TOKENIZER_FOLDER
from library.models.weights import save_tensors

_PAD_TOKENS = {EOS: "<|endoftext|>", 0: "!"}


def save_folder(
    path: Path,
    layout: Layout,
    parts: Mapping[Part, dict[str, Tensor]],
    *,
    pipeline: str,
    modules: Mapping[Part, Any],
    scheduler: Mapping[str, Any],
    safetensors: bool,
    max_shard_size: int,
) -> None:
    """Write a folder that the `from_pretrained` of diffusers' pipeline loads, whole.

    parts: tensors under canonical names.
    pipeline: diffusers' class that loads it.
    modules: diffusers' and transformers' models, for their configurations.
    scheduler: see `scheduler_config`.
    safetensors: the weights' container; else .bin.
    max_shard_size: bytes of a file of weights; a larger part is in several.
    """
    with whole_folder(path) as folder:
        for part, tensors in parts.items():
            (folder / part).mkdir()
            _save_weights(folder / part / _weight_name(part, safetensors), tensors, max_shard_size)
            _save_config(modules[part], folder / part)
        for name, pad in zip(_tokenizers(layout), layout.pads, strict=True):
            _save_tokenizer(folder / name, pad)
        (folder / "scheduler").mkdir()
        text = json.dumps(scheduler, indent=2)
        (folder / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
        index = json.dumps(_index(layout, pipeline, scheduler["_class_name"]), indent=2, sort_keys=True)
        (folder / "model_index.json").write_text(index, encoding="utf-8")


def scheduler_config(
    layout: Layout, prediction_type: PredictionType, zero_terminal_snr: bool
) -> dict[str, Any]:
    """The family's published scheduler settings and no more, so that other samplers keep their own."""
    import diffusers

    name, settings = layout.scheduler
    kind = "v_prediction" if prediction_type == "v" else "epsilon"
    settings = {**settings, "prediction_type": kind}
    if zero_terminal_snr:
        settings |= terminal_settings(prediction_type)
    if prediction_type == "flow":
        name, settings = "FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": TRAIN_STEPS}
    return {"_class_name": name, "_diffusers_version": diffusers.__version__, **settings}


def _save_weights(path: Path, tensors: dict[str, Tensor], most: int) -> None:
    """Write a part's weights as one file, or as several with an index where they are larger than `most`."""
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    files = shares(sizes, most)
    if len(files) == 1:
        save_tensors(path, tensors, {"format": "pt"})
        return
    named = dict(zip(shard_names(path.name, len(files)), files, strict=True))
    for name, inside in named.items():
        save_tensors(path.with_name(name), {own: tensors[own] for own in inside}, {"format": "pt"})
    (index,) = index_names(path.stem, path.suffix, None)
    text = json.dumps(index_of(named, sum(sizes.values())), indent=2, sort_keys=True) + "\n"
    path.with_name(index).write_text(text, encoding="utf-8")


def _weight_name(part: Part, safetensors: bool) -> str:
    if safetensors:
        return f"{WEIGHT_STEMS[part]}.safetensors"
    return "pytorch_model.bin" if WEIGHT_STEMS[part] == "model" else f"{WEIGHT_STEMS[part]}.bin"


def _save_config(module: Any, folder: Path) -> None:
    if isinstance(module.config, dict):  # diffusers
        module.save_config(folder)
        return
    config = copy.deepcopy(module.config)
    config.architectures = [type(module).__name__]
    config.save_pretrained(folder)


def _tokenizers(layout: Layout) -> list[str]:
    """The tokenizers' folders, one for each text encoder."""
    return [name.replace("text_encoder", "tokenizer") for name in layout.texts]


def _save_tokenizer(folder: Path, pad: int) -> None:
    folder.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copyfile(TOKENIZER_FOLDER / name, folder / name)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        text = json.dumps(settings | {"pad_token": _PAD_TOKENS[pad]}, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _index(layout: Layout, pipeline: str, scheduler: str) -> dict[str, Any]:
    import diffusers

    kinds: dict[str, list[str]] = {"scheduler": ["diffusers", scheduler]}
    for name, part in layout.parts.items():
        if part.is_text_encoder:
            kind = "CLIPTextModelWithProjection" if part.projects else "CLIPTextModel"
            kinds[name] = ["transformers", kind]
        else:
            kinds[name] = ["diffusers", {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}[part.kind]]
    kinds |= {name: ["transformers", "CLIPTokenizer"] for name in _tokenizers(layout)}
    about = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    return {**about, **layout.pipeline_options, **kinds}
