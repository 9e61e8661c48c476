"""By what SD 1.x and SD 2.x are recognised: the names of their text encoders."""

from __future__ import annotations

from library.models.signs import Folder, Signs

_UNET = "model.diffusion_model."
_PARTS = ("unet", "text_encoder", "vae")


def _is_sd2(folder: Folder) -> bool:
    """OpenCLIP's text encoder computes with gelu, OpenAI's with quick_gelu."""
    is_open_clip = folder.config("text_encoder").get("hidden_act", "quick_gelu") == "gelu"
    return is_open_clip or bool(folder.config("unet").get("use_linear_projection"))


SD1 = Signs(
    denoiser=_UNET,
    texts=("cond_stage_model.transformer.",),
    vae="first_stage_model.",
    first_layer=f"{_UNET}input_blocks.0.0.weight",
    parts=_PARTS,
    is_folder=lambda folder: True,
)
SD2 = Signs(
    denoiser=_UNET,
    texts=("cond_stage_model.model.",),
    vae="first_stage_model.",
    first_layer=f"{_UNET}input_blocks.0.0.weight",
    parts=_PARTS,
    is_folder=_is_sd2,
)
