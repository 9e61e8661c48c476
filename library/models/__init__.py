"""Model families: which there are, which one a file belongs to, and loading. Imports no torch by itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from library.latent_space import LatentSpace
from library.models.prediction import check_claim
from library.models.sources import WEIGHT_STEMS, Source, find_source, find_weights, read_json, vae_folder
from library.models.weights import read_header
from library.problems import UserError

if TYPE_CHECKING:
    import torch

    from library.models.base import Model
    from library.options.saving import CheckpointFormat


@dataclass(frozen=True)
class Family:
    """A kind of model that can be trained.

    module: the one with `load(source, family, ...) -> Model`. side: the pictures it was made for, in pixels.
    architectures, base_versions: what metadata calls it when it predicts the noise and when it predicts v.
    implementation: what metadata says about a network's names. flag: the option that claims it.
    latent_space: of its published VAEs, which what is checked before a model is loaded goes by.
    """

    title: str
    module: str
    architectures: tuple[str, str]
    base_versions: tuple[str, str]
    implementation: str = "diffusers"
    side: int = 512
    flag: str | None = None
    latent_space: LatentSpace = LatentSpace(channels=4, pixels_per_latent=8, pixel_multiple=8)

    def architecture(self, prediction_type: str) -> str:
        """`modelspec.architecture` of a checkpoint."""
        return self.architectures[prediction_type == "v"]

    def base_version(self, prediction_type: str) -> str:
        """`ss_base_model_version`."""
        return self.base_versions[prediction_type == "v"]


FAMILIES = {
    "sd1": Family(
        "SD 1.x",
        "library.models.sd.model",
        ("stable-diffusion-v1", "stable-diffusion-v1"),
        ("sd_v1", "sd_v1_v"),
        flag="--v1",
    ),
    "sd2": Family(
        "SD 2.x",
        "library.models.sd.model",
        ("stable-diffusion-v2-512", "stable-diffusion-v2-768-v"),
        ("sd_v2", "sd_v2_v"),
        flag="--v2",
    ),
    "sdxl": Family(
        "SDXL",
        "library.models.sdxl.model",
        ("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v1-base"),
        ("sdxl_base_v1-0", "sdxl_base_v1-0"),
        implementation="https://github.com/Stability-AI/generative-models",
        side=1024,
    ),
}


class _Sign(NamedTuple):
    """What a file is when one of its names begins with (or contains, after a *) this mark."""

    mark: str
    what: str
    fix: str = ""


_TRAINS = f"Atelier trains {', '.join(family.title for family in FAMILIES.values())}"
# The first that fits says what a file is. Names of files that are no trainable model come first.
_OTHERS = (
    _Sign("*.lora_down.", "is a LoRA, not a model", "give it to --network_weights"),
    _Sign("*.lora_up.", "is a LoRA, not a model", "give it to --network_weights"),
    _Sign("*.lora_A.", "is a LoRA, not a model", "give it to --network_weights"),
    _Sign("*.hada_w1", "is a LoHa, not a model", "give it to --network_weights"),
    _Sign("*.lokr_w1", "is a LoKr, not a model", "give it to --network_weights"),
    _Sign("emb_params", "is a textual inversion embedding, not a model"),
    _Sign("string_to_param", "is a textual inversion embedding, not a model"),
    _Sign("clip_g", "is a textual inversion embedding, not a model"),
    _Sign("*input_hint_block.", "is a ControlNet, not a model"),
    _Sign("controlnet_cond_embedding.", "is a ControlNet, not a model"),
    _Sign("conditioner.embedders.0.model.", "is an SDXL refiner", _TRAINS),
    _Sign("model.diffusion_model.joint_blocks.", "is an SD 3 model", _TRAINS),
    _Sign("joint_blocks.", "is an SD 3 model", _TRAINS),
    _Sign("model.diffusion_model.double_blocks.", "is a Flux model", _TRAINS),
    _Sign("double_blocks.", "is a Flux model", _TRAINS),
)
_UNET = "model.diffusion_model."
_VAE = ("first_stage_model.", "encoder.down.", "encoder.down_blocks.")
# The beginnings of each family's text encoders' names in a single file; the first one tells the family.
_TEXTS = {
    "sdxl": ("conditioner.embedders.1.model.", "conditioner.embedders.0.transformer."),
    "sd2": ("cond_stage_model.model.",),
    "sd1": ("cond_stage_model.transformer.",),
}


def detect_family(source: str | Path | Source) -> str:
    """The FAMILIES name of a model, from its names and shapes (a folder's from its configs too).

    Raises UserError, one line, for anything else: what it is instead, or that it is damaged.
    """
    source = source if isinstance(source, Source) else find_source(source)
    return _family_of_folder(source) if source.kind == "diffusers" else _family_of_file(source)


def check_source(
    name: str | Path,
    *,
    v1: bool = False,
    v2: bool = False,
    v_parameterization: bool = False,
    family: str | None = None,
    variant: str | None = None,
) -> Source:
    """Checks a model before anything heavy is imported and gives its files.

    v1, v2, v_parameterization, family: what the user claims, by an option or by the command chosen. It is
    checked: the files decide where they say something.
    variant: which of a folder's weights to read.
    Raises UserError when the model cannot be used or is not what is claimed.
    """
    source = find_source(name, variant)
    found = FAMILIES[detect_family(source)]
    for flag in (flag for flag, given in (("--v1", v1), ("--v2", v2)) if given):
        if found.flag != flag:
            cause = f"{name} is an {found.title} model"
            raise UserError.of(flag, cause, f"leave {flag} out")
    if family is not None and found is not FAMILIES[family]:
        cause = f"is an {found.title} model, this command is for {FAMILIES[family].title}"
        raise UserError.of(name, cause, "use the command without sdxl_ in its name")
    if v_parameterization:
        check_claim(source, "v")
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


def check_channels(name: str, conv_in: tuple[int, ...] | None) -> None:
    """Raises UserError for the shape of a U-Net's first convolution that takes more than latents.

    Inpainting (9 channels) and instruction (8) models need inputs that training does not make.
    """
    if conv_in is not None and conv_in[1] != 4:
        cause = f"has {conv_in[1]} input channels (an inpainting or editing model)"
        raise UserError.of(name, cause, "use a text-to-image model, which has 4")


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
    device: torch.device | str = "cpu",
    v_parameterization: bool = False,
    variant: str | None = None,
    linear_projection: bool = False,
    keeps_others: bool = False,
) -> Model:
    """A model in eval mode.

    name, vae: a .safetensors or .ckpt file, a Diffusers folder or a hub id.
    dtype: of every weight, a torch dtype or its name; "stored" keeps each as the file has it.
    device: where each weight goes as soon as it is read.
    v_parameterization: the user says that it predicts v, which decides where the files say nothing.
    variant: which of a folder's weights to read, e.g. "fp16".
    linear_projection: SD 2.x's projections become matrices, whatever they are in the file.
    keeps_others: tensors of a single file that are no part of the model are kept, to be saved with it.
    Raises UserError when the files cannot be used or say something else than the user.
    """
    source = check_source(name, v_parameterization=v_parameterization, variant=variant)
    family = detect_family(source)
    module = importlib.import_module(FAMILIES[family].module)
    return module.load(
        source,
        family,
        vae=check_vae(vae) if vae else None,
        dtype=dtype,
        device=device,
        prediction_type="v" if v_parameterization else None,
        linear_projection=linear_projection,
        keeps_others=keeps_others,
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
    family = next((family for family, texts in _TEXTS.items() if _begins(header.names, texts[0])), None)
    has_unet, has_vae = _begins(header.names, _UNET), _begins(header.names, *_VAE)
    if has_vae and not (has_unet or family):
        raise UserError.of(source.name, "is a VAE, not a model", "give it to --vae")
    if not has_unet:
        raise UserError.of(source.name, "is not a Stable Diffusion checkpoint")
    has_texts = family is not None and all(_begins(header.names, text) for text in _TEXTS[family])
    missing = [part for part, there in (("text encoder", has_texts), ("VAE", has_vae)) if not there]
    if missing:
        raise UserError.of(source.name, f"has no {' and no '.join(missing)}", "use a full checkpoint")
    check_channels(source.name, header.shapes.get(f"{_UNET}input_blocks.0.0.weight"))
    return family


def _family_of_folder(source: Source) -> str:
    folder = source.path
    if not (folder / "unet").is_dir():
        if (folder / "transformer").is_dir():
            raise UserError.of(source.name, "is a model with a transformer", _TRAINS)
        files = sorted(f.name for f in folder.iterdir() if f.suffix in (".safetensors", ".ckpt"))
        fix = f"did you mean {folder / files[0]}?" if files else "give a model file or a Diffusers folder"
        raise UserError.of(source.name, "this folder holds no Diffusers model (no unet folder in it)", fix)
    has_second = (folder / "text_encoder_2").is_dir()
    if has_second and not (folder / "text_encoder").is_dir():
        raise UserError.of(source.name, "is an SDXL refiner", _TRAINS)
    for part in ("unet", "text_encoder", "vae", *(["text_encoder_2"] if has_second else [])):
        source.weights(part)  # raises when there are none
    unet, text = (read_json(folder / part / "config.json") for part in ("unet", "text_encoder"))
    check_channels(source.name, (0, unet.get("in_channels", 4)))
    if has_second:
        return "sdxl"
    if unet.get("addition_embed_type") == "text_time":
        raise UserError.of(source.name, "is an SDXL model without its text_encoder_2", "get the folder again")
    # What tells SD 2.x apart: OpenCLIP's text encoder computes with gelu, OpenAI's with quick_gelu.
    is_open_clip = text.get("hidden_act", "quick_gelu") == "gelu"
    return "sd2" if is_open_clip or unet.get("use_linear_projection") else "sd1"
