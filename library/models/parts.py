"""Which part of a model a name in a single-file checkpoint belongs to. Alike for SD 1.x, SD 2.x and SDXL."""

from __future__ import annotations

from typing import get_args

from library.options.model_tools import PartName

_STARTS: dict[str, tuple[str, ...]] = {
    "unet": ("model.diffusion_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner."),
    "vae": tuple(
        f"first_stage_model.{module}." for module in ("encoder", "decoder", "quant_conv", "post_quant_conv")
    ),
}
# Tensors that are there for their names: by them ComfyUI knows how a U-Net predicts.
MARKS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
PART_NAMES: tuple[PartName, ...] = get_args(PartName)


def part_of(name: str) -> PartName | None:
    """The part; None for what a model does not need: averaged weights (model_ema.), noise tables, losses."""
    return next((part for part in PART_NAMES if name.startswith(_STARTS[part])), None)
