"""A latent diffusion model from its files: parts read, checked against each other and built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch

from library.models.detection import check_channels, family_beside
from library.models.families import FAMILIES, SD_SCALE
from library.models.ldm.building import build_part
from library.models.ldm.layout import Layout
from library.models.ldm.model import LatentDiffusion
from library.models.ldm.reading import PartFile, read_model, read_vae
from library.models.parts import sound_positions
from library.models.prediction import (
    TERMINAL_MARK,
    V_MARK,
    PredictionType,
    declared_prediction,
    declares_zero_terminal_snr,
)
from library.models.sources import Source
from library.models.weights import dtype_of
from library.problems import UserError, warn

M = TypeVar("M", bound=LatentDiffusion)
_MADE_ANEW = (V_MARK, TERMINAL_MARK)  # other tensors that a save makes itself, as training may change them


def load_layout(
    models: Mapping[str, tuple[type[M], Layout]],
    source: Source,
    family: str,
    *,
    vae: Source | None,
    dtype: torch.dtype | str,
    device: torch.device | str = "cpu",
    prediction_type: PredictionType | None = None,
    linear_projection: bool = False,
    keeps_others: bool = False,
) -> M:
    """A model from its files, in eval mode, nothing requiring gradients.

    models: the class and layout of each family that shares this loader; `family` is one of them.
    dtype: of every weight, a torch dtype or its name; "stored" keeps each as the file has it.
    vae: the files of a VAE that replaces the model's own.
    prediction_type: None takes what the files declare, or epsilon.
    linear_projection: make the projections around the U-Net's transformers matrices, whatever they were.
    keeps_others: keep tensors of a single file that belong to no part, and save them with the model.
    Raises UserError when files are damaged or do not fit together.
    """
    kind, layout = models[family]
    files = read_model(source, layout)
    if keeps_others and files.file is None:
        warn(f"--keep_other_tensors has no effect: {source.name} is a folder, which holds no others")
    opened = files.parts | ({layout.vae: read_vae(vae, layout)} if vae else {})
    if vae:
        _check_scale(vae, opened[layout.vae], files.parts[layout.vae], layout)
    if linear_projection:
        opened[layout.denoiser] = _with_matrices(opened[layout.denoiser])
    cast = None if dtype == "stored" else dtype_of(dtype) if isinstance(dtype, str) else dtype
    check_channels(source.name, family, opened[layout.denoiser].shapes.get("conv_in.weight"))
    predicts = _prediction_type(source, layout, prediction_type)
    modules = {name: build_part(part, dtype=cast, device=device) for name, part in opened.items()}
    unet, decoder = modules[layout.denoiser], modules[layout.vae]
    channels = decoder.config.latent_channels
    if channels != unet.config.out_channels:
        cause = f"its latents have {channels} channels, this model's {unet.config.out_channels}"
        raise UserError.of((vae or source).name, cause, f"use a VAE of {layout.title}")
    texts = [modules[name] for name in layout.texts]
    model = kind(unet, texts, decoder, layout=layout, prediction_type=predicts)
    model.zero_terminal_snr = declares_zero_terminal_snr(source)
    model.source, model.vae_source = source, vae
    model.epoch, model.global_step = files.epoch, files.global_step
    model.spare = {name: tensor for part in opened.values() for name, tensor in part.read_spare()}
    others = files.read_others() if keeps_others else ()
    model.others = {name: sound_positions(name, tensor) for name, tensor in others if name not in _MADE_ANEW}
    return model.eval()


def _check_scale(source: Source, vae: PartFile, own: PartFile, layout: Layout) -> None:
    """Raises UserError for a VAE of another family, and warns of one that seems to be.

    SD's and SDXL's VAEs have equal names and shapes. What tells them apart is the scale of latents in a
    folder's configuration or our metadata, and the text encoders beside one in a checkpoint. A bare file of
    weights tells only whether they have a common origin with the model's own: tuned ones keep most of it.
    """
    expected, family = own.part.settings(own.given)["scaling_factor"], family_beside(source)
    scale = vae.given.get("scaling_factor")
    if scale is None and family is not None:
        scale = FAMILIES[family].latent_space.scale
    elif scale is None and source.kind == "diffusers":
        scale = SD_SCALE
    if scale is not None:
        if abs(scale / expected - 1) > 1e-3:
            cause = f"its latents are scaled by {scale:g}, those of this model by {expected:g}"
            raise UserError.of(source.name, cause, f"use a VAE of {layout.title}")
    elif _similarity(vae, own) < 0.5:
        warn(
            f"{source.name}: its encoder has nothing in common with the model's own; a VAE of another family "
            f"than {layout.title} gives latents that the U-Net does not know"
        )


def _similarity(one: PartFile, other: PartFile) -> float:
    """The cosine between the last layers of two encoders; 1 where they cannot be compared."""
    name = "encoder.conv_out.weight"
    if one.shapes.get(name) != other.shapes.get(name) or name not in one.pieces:
        return 1.0
    a, b = (part.read(name).flatten().float() for part in (one, other))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def _prediction_type(source: Source, layout: Layout, claimed: PredictionType | None) -> PredictionType:
    """What the user claims (already checked), else what the files declare, else epsilon."""
    found = claimed or declared_prediction(source)
    if not (found or layout.defaults_to_epsilon):
        warn(
            f"{source.name} does not say whether it predicts the noise or v: taken for one that predicts the "
            "noise; for a 768-v model give --v_parameterization"
        )
    return found or "epsilon"


def _with_matrices(unet: PartFile) -> PartFile:
    given = {**unet.given, "use_linear_projection": True}
    return PartFile(unet.part, unet.file, unet.pieces, given, unet.spare)
