"""Which family a file or folder belongs to, or what it is instead. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from library.models.families import FAMILIES, Family
from library.models.prediction import check_claim, declared_prediction, read_scheduler
from library.models.signs import Folder, Mark
from library.models.sources import WEIGHT_STEMS, Source, find_source, find_weights, own_folder
from library.models.weights import read_header
from library.problems import UserError

_EDM = "was trained with EDM's noise ({}), which training here does not make"
# The first that fits says what a file is. Names of files that are no trainable model come first.
_OTHERS = (
    Mark("*.lora_down.", "is a LoRA, not a model", "give it to --network_weights"),
    Mark("*.lora_up.", "is a LoRA, not a model", "give it to --network_weights"),
    Mark("*.lora_A.", "is a LoRA, not a model", "give it to --network_weights"),
    Mark("*.hada_w1", "is a LoHa, not a model", "give it to --network_weights"),
    Mark("*.lokr_w1", "is a LoKr, not a model", "give it to --network_weights"),
    Mark("edm_mean", _EDM.format("as Playground v2.5")),
    Mark("edm_std", _EDM.format("as Playground v2.5")),
    Mark("edm_vpred.", _EDM.format("as CosXL")),
    Mark("emb_params", "is a textual inversion embedding, not a model"),
    Mark("string_to_param", "is a textual inversion embedding, not a model"),
    Mark("clip_g", "is a textual inversion embedding, not a model"),
    Mark("*input_hint_block.", "is a ControlNet, not a model"),
    Mark("controlnet_cond_embedding.", "is a ControlNet, not a model"),
    Mark("model.diffusion_model.joint_blocks.", "is an SD 3 model", None),
    Mark("joint_blocks.", "is an SD 3 model", None),
    Mark("model.diffusion_model.double_blocks.", "is a Flux model", None),
    Mark("double_blocks.", "is a Flux model", None),
)
_BARE_VAE = ("encoder.down.", "encoder.down_blocks.")  # names in files with nothing but a VAE


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
    sdxl: bool = False,
    v_parameterization: bool = False,
    family: str | None = None,
    variant: str | None = None,
) -> Source:
    """Checks a model before anything heavy is imported and gives its files.

    v1, v2, sdxl, v_parameterization, family: what the user claims, by an option or by the command chosen.
        It is checked: the files decide where they say something.
    variant: which of a folder's weights to read.
    Raises UserError when the model cannot be used or is not what is claimed.
    """
    source = find_source(name, variant)
    found = FAMILIES[detect_family(source)]
    claims = {"--v1": v1, "--v2": v2, "--sdxl": sdxl}
    for flag in (flag for flag, is_claimed in claims.items() if is_claimed):
        if found.flag != flag:
            cause = f"{name} is an {found.title} model"
            raise UserError.of(flag, cause, f"leave {flag} out")
    if family is not None and found is not FAMILIES[family]:
        cause = f"is an {found.title} model, this command is for {FAMILIES[family].title}"
        raise UserError.of(name, cause, "use the command without sdxl_ in its name")
    declared_prediction(source)  # raises for what cannot be trained
    if v_parameterization:
        check_claim(source, "v")
    return source


def check_vae(name: str | Path) -> Source:
    """Checks what is given to --vae, a VAE file, a checkpoint or a Diffusers folder, and gives its files.

    Raises UserError when there is no VAE in it.
    """
    source = find_source(name, only="vae")
    if source.kind == "diffusers":
        folder = own_folder(source.path, "vae")
        if find_weights(folder, WEIGHT_STEMS["vae"]) is None:
            raise UserError.of(name, "this folder holds no VAE (diffusion_pytorch_model.safetensors or .bin)")
    elif not _begins(read_header(source.path).names, *_vae_beginnings()):
        raise UserError.of(name, "holds no VAE")
    return source


def family_beside(vae: Source) -> str | None:
    """The FAMILIES name of the checkpoint that a VAE is taken from, by the text encoders beside it; None for
    a file of nothing but a VAE, and for folders.
    """
    if vae.kind == "diffusers":
        return None
    names = read_header(vae.path).names
    pairs = _asked_in_order()
    return next((name for name, family in pairs if _begins(names, family.signs.texts[0])), None)


def is_inpainting(source: Source) -> bool:
    """Whether a model is given a mask and a masked picture beside the noisy latents, by its first layer.
    Raises UserError as `detect_family`.
    """
    family = FAMILIES[detect_family(source)]
    if source.kind == "diffusers":
        taken = Folder(source.path).config(family.signs.parts[0]).get("in_channels")
    else:
        taken = read_header(source.path).shapes.get(family.signs.first_layer, (0, 0))[1]
    return taken == family.latent_space.inpainting_channels


def check_channels(name: str, family: str, conv_in: tuple[int, ...] | None) -> None:
    """Raises UserError for the shape of a denoiser's first layer that takes what training does not make."""
    space = FAMILIES[family].latent_space
    wanted = (space.channels, space.inpainting_channels)
    if conv_in is None or len(conv_in) < 2 or conv_in[1] in wanted:
        return
    others = {
        str(space.channels + 1): " (a depth model: it is given a depth map of the picture)",
        str(
            2 * space.channels
        ): " (an editing model, such as instruct-pix2pix: it is given the picture to edit)",
    }
    cause = (
        f"has {conv_in[1]} input channels{others.get(str(conv_in[1]), '')}, for which training makes no input"
    )
    fix = f"use a text-to-image model, which has {wanted[0]}, or an inpainting model, which has {wanted[1]}"
    raise UserError.of(name, cause, fix)


def _family_of_file(source: Source) -> str:
    header = read_header(source.path)
    families = _asked_in_order()
    for mark in (*_OTHERS, *(mark for _, family in families for mark in family.signs.others)):
        if mark.is_among(header.names):
            raise _refused(source, mark)
    found = next((pair for pair in families if _begins(header.names, pair[1].signs.texts[0])), None)
    has_denoiser = _begins(header.names, *(family.signs.denoiser for _, family in families))
    has_vae = _begins(header.names, *_vae_beginnings())
    if not has_denoiser and _begins(header.names, "model_ema."):
        cause = "holds only averaged weights of its U-Net (model_ema.*)"
        raise UserError.of(source.name, cause, "use the full checkpoint")
    if has_vae and not (has_denoiser or found):
        raise UserError.of(source.name, "is a VAE, not a model", "give it to --vae")
    if not has_denoiser:
        raise UserError.of(source.name, "is not a Stable Diffusion checkpoint")
    has_texts = found is not None and all(_begins(header.names, text) for text in found[1].signs.texts)
    if found is None or not has_texts or not has_vae:
        missing = [part for part, there in (("text encoder", has_texts), ("VAE", has_vae)) if not there]
        raise UserError.of(source.name, f"has no {' and no '.join(missing)}", "use a full checkpoint")
    name, family = found
    check_channels(source.name, name, header.shapes.get(family.signs.first_layer))
    return name


def _family_of_folder(source: Source) -> str:
    folder, families = Folder(source.path), _asked_in_order()
    akin = [(name, family) for name, family in families if folder.has(family.signs.parts[0])]
    if not akin:
        raise _no_model(source)
    scheduler = read_scheduler(source.path)
    if _makes_edm_noise(scheduler):
        raise UserError.of(source.name, _EDM.format(f"scheduler {scheduler.get('_class_name', 'of EDM')}"))
    for _, family in akin:
        if (mark := family.signs.refusal(folder)) is not None:
            raise _refused(source, mark)
    found = next((pair for pair in akin if pair[1].signs.is_folder(folder)), None)
    if found is None:
        raise _no_model(source)
    name, family = found
    for part in family.signs.parts:
        source.weights(part)  # raises when there are none
    channels = folder.config(family.signs.parts[0]).get("in_channels", family.latent_space.channels)
    check_channels(source.name, name, (0, channels))
    return name


def _makes_edm_noise(scheduler: Mapping[str, Any]) -> bool:
    """Whether a Diffusers scheduler is one of EDM's (Karras et al. 2022, arXiv:2206.00364), by its name or by
    settings that only those have.
    """
    is_named = str(scheduler.get("_class_name", "")).startswith("EDM")
    return is_named or "sigma_data" in scheduler or scheduler.get("timestep_type") == "continuous"


def _no_model(source: Source) -> UserError:
    if (source.path / "transformer").is_dir():
        return UserError.of(source.name, "is a model with a transformer", _trains())
    files = sorted(f.name for f in source.path.iterdir() if f.suffix.lower() in (".safetensors", ".ckpt"))
    fix = f"did you mean {source.path / files[0]}?" if files else "give a model file or a Diffusers folder"
    return UserError.of(source.name, "this folder holds no Diffusers model (no unet folder in it)", fix)


def _refused(source: Source, mark: Mark) -> UserError:
    return UserError.of(source.name, mark.what, _trains() if mark.fix is None else mark.fix)


def _trains() -> str:
    return f"Atelier trains {', '.join(family.title for family in FAMILIES.values())}"


def _asked_in_order() -> list[tuple[str, Family]]:
    """The last first; see Signs."""
    return list(reversed(FAMILIES.items()))


def _vae_beginnings() -> tuple[str, ...]:
    return (*(family.signs.vae for family in FAMILIES.values()), *_BARE_VAE)


def _begins(names: Iterable[str], *marks: str) -> bool:
    return any(name.startswith(marks) for name in names)
