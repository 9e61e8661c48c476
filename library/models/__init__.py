"""Model families: which there are, which one a file belongs to, and loading. Imports no torch by itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from library.models.sources import WEIGHT_STEMS, Source, find_source, find_weights, read_json, vae_folder
from library.models.weights import read_header
from library.problems import UserError

if TYPE_CHECKING:
    import torch

    from library.models.base import CheckpointFormat, Model


@dataclass(frozen=True)
class Family:
    """A kind of model that can be trained.

    module: the one with `load(source, ...) -> Model`. architecture, base_version: what metadata calls it.
    """

    title: str
    module: str
    architecture: str
    base_version: str


FAMILIES = {"sd1": Family("SD 1.x", "library.models.sd.model", "stable-diffusion-v1", "sd_v1")}


class _Sign(NamedTuple):
    """What a file is when one of its names begins with (or contains, after a *) this mark."""

    mark: str
    what: str
    fix: str = ""


_TRAINS = f"Atelier trains {', '.join(family.title for family in FAMILIES.values())} so far"
# The first that fits says what a file is. Names of files that are no trainable model come first.
_OTHERS = (
    _Sign("*.lora_down.", "is a LoRA, not a model", "give it to --network_weights"),
    _Sign("*.lora_up.", "is a LoRA, not a model", "give it to --network_weights"),
    _Sign("*.lora_A.", "is a LoRA, not a model", "give it to --network_weights"),
    _Sign("emb_params", "is a textual inversion embedding, not a model"),
    _Sign("string_to_param", "is a textual inversion embedding, not a model"),
    _Sign("*input_hint_block.", "is a ControlNet, not a model"),
    _Sign("conditioner.embedders.", "is an SDXL model", _TRAINS),
    _Sign("cond_stage_model.model.", "is an SD 2.x model", _TRAINS),
    _Sign("model.diffusion_model.joint_blocks.", "is an SD 3 model", _TRAINS),
    _Sign("joint_blocks.", "is an SD 3 model", _TRAINS),
    _Sign("model.diffusion_model.double_blocks.", "is a Flux model", _TRAINS),
    _Sign("double_blocks.", "is a Flux model", _TRAINS),
)
_UNET, _TEXT = "model.diffusion_model.", "cond_stage_model.transformer."
_VAE = ("first_stage_model.", "encoder.down.", "encoder.down_blocks.")


def detect_family(source: str | Path | Source) -> str:
    """The FAMILIES name of a model, from its names and shapes (a folder's from its configs too).

    Raises UserError, one line, for anything else: what it is instead, or that it is damaged.
    """
    source = source if isinstance(source, Source) else find_source(source)
    return _family_of_folder(source) if source.kind == "diffusers" else _family_of_file(source)


def check_source(name: str | Path, *, v2: bool = False, variant: str | None = None) -> Source:
    """Checks a model before anything heavy is imported and gives its files.

    v2: what the user claims; the file decides. variant: which of a folder's weights to read.
    Raises UserError when the model cannot be used or is not what is claimed.
    """
    source = find_source(name, variant)
    family = detect_family(source)
    if v2:
        raise UserError.of("--v2", f"{name} is an {FAMILIES[family].title} model", "leave --v2 out")
    return source


def check_vae(name: str | Path) -> Source:
    """Checks what is given to --vae, a VAE file, a checkpoint or a Diffusers folder, and gives its files.

    Raises UserError when there is no VAE in it.
    """
    source = find_source(name, vae_only=True)
    if source.kind == "diffusers":
        folder = vae_folder(source.path)
        if find_weights(folder, WEIGHT_STEMS["vae"]) is None:
            raise UserError.of(name, "this folder holds no VAE (diffusion_pytorch_model.safetensors or .bin)")
    elif not _begins(read_header(source.path).names, *_VAE):
        raise UserError.of(name, "holds no VAE")
    return source


def check_target(path: Path, format: CheckpointFormat) -> None:
    """Raises UserError when saving a model here would take the place of something that is no model."""
    if not path.exists():
        return
    is_folder = format in ("diffusers", "diffusers_safetensors")
    if path.is_dir() != is_folder:
        raise UserError.of(path, f"is a {'file' if is_folder else 'folder'}", "choose another name")
    if is_folder and any(path.iterdir()) and not (path / "model_index.json").is_file():
        cause = "this folder holds other things than a Diffusers model, and would be replaced"
        raise UserError.of(path, cause, "choose another name")


def load_model(
    name: str | Path,
    *,
    vae: str | Path | None = None,
    dtype: torch.dtype | str = "float32",
    v_parameterization: bool = False,
    variant: str | None = None,
) -> Model:
    """A model on the CPU, in eval mode.

    name, vae: a .safetensors or .ckpt file, a Diffusers folder or a hub id.
    dtype: of every weight, a torch dtype or its name; "stored" keeps each as the file has it.
    v_parameterization: v-prediction, whatever the files say.
    variant: which of a folder's weights to read, e.g. "fp16".
    Raises UserError when the files cannot be used.
    """
    source = check_source(name, variant=variant)
    family = FAMILIES[detect_family(source)]
    module = importlib.import_module(family.module)
    return module.load(
        source,
        vae=check_vae(vae) if vae else None,
        dtype=dtype,
        prediction_type="v" if v_parameterization else None,
    )


def _begins(names: Iterable[str], *marks: str) -> bool:
    return any(name.startswith(marks) for name in names)


def _family_of_file(source: Source) -> str:
    header = read_header(source.path)
    for sign in _OTHERS:
        found = (
            any(sign.mark[1:] in n for n in header.names)
            if sign.mark[0] == "*"
            else _begins(header.names, sign.mark)
        )
        if found:
            raise UserError.of(source.name, sign.what, sign.fix)
    has_unet, has_text, has_vae = (_begins(header.names, *marks) for marks in ((_UNET,), (_TEXT,), _VAE))
    if has_vae and not (has_unet or has_text):
        raise UserError.of(source.name, "is a VAE, not a model", "give it to --vae")
    if not has_unet:
        raise UserError.of(source.name, "is not a Stable Diffusion checkpoint")
    missing = [part for part, there in (("text encoder", has_text), ("VAE", has_vae)) if not there]
    if missing:
        raise UserError.of(source.name, f"has no {' and no '.join(missing)}", "use a full checkpoint")
    _check_channels(source, header.shapes.get(f"{_UNET}input_blocks.0.0.weight"))
    return "sd1"


def _family_of_folder(source: Source) -> str:
    folder = source.path
    if not (folder / "unet").is_dir():
        if (folder / "transformer").is_dir():
            raise UserError.of(source.name, "is a model with a transformer", _TRAINS)
        files = sorted(f.name for f in folder.iterdir() if f.suffix in (".safetensors", ".ckpt"))
        fix = f"did you mean {folder / files[0]}?" if files else "give a model file or a Diffusers folder"
        raise UserError.of(source.name, "this folder holds no Diffusers model (no unet folder in it)", fix)
    if (folder / "text_encoder_2").is_dir():
        raise UserError.of(source.name, "is an SDXL model", _TRAINS)
    for part in WEIGHT_STEMS:
        source.weights(part)  # raises when there are none
    unet, text = (read_json(folder / part / "config.json") for part in ("unet", "text_encoder"))
    # What tells SD 2.x apart: OpenCLIP's text encoder computes with gelu, OpenAI's with quick_gelu.
    if unet.get("use_linear_projection") or text.get("hidden_act", "quick_gelu") == "gelu":
        raise UserError.of(source.name, "is an SD 2.x model", _TRAINS)
    _check_channels(source, (0, unet.get("in_channels", 4)))
    return "sd1"


def _check_channels(source: Source, conv_in: tuple[int, ...] | None) -> None:
    """Inpainting (9 channels) and instruction (8) models need inputs that training does not make."""
    if conv_in is not None and conv_in[1] != 4:
        cause = f"has {conv_in[1]} input channels (an inpainting or editing model)"
        raise UserError.of(source.name, cause, "use a text-to-image model, which has 4")
