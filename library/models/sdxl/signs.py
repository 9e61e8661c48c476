"""By what SDXL is recognised: two text encoders, the second one OpenCLIP's."""

from __future__ import annotations

from library.models.signs import Folder, Mark, Signs

_UNET = "model.diffusion_model."
_SECOND = "text_encoder_2"


def _refusal(folder: Folder) -> Mark | None:
    if folder.has(_SECOND):
        return None if folder.has("text_encoder") else Mark(_SECOND, "is an SDXL refiner", None)
    if folder.config("unet").get("addition_embed_type") == "text_time":
        return Mark("unet", f"is an SDXL model without its {_SECOND}", "get the folder again")
    return None


SDXL = Signs(
    denoiser=_UNET,
    texts=("conditioner.embedders.1.model.", "conditioner.embedders.0.transformer."),
    vae="first_stage_model.",
    first_layer=f"{_UNET}input_blocks.0.0.weight",
    parts=("unet", "text_encoder", _SECOND, "vae"),
    is_folder=lambda folder: folder.has(_SECOND),
    others=(Mark("conditioner.embedders.0.model.", "is an SDXL refiner", None),),
    refusal=_refusal,
)
