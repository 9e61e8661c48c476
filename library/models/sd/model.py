"""Stable Diffusion 1.x and 2.x as a Model: one text encoder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from library.models.base import Condition
from library.models.ldm.layout import Layout, PartLayout
from library.models.ldm.loading import load_layout
from library.models.ldm.model import LatentDiffusion
from library.models.noise_schedule import DDIM_CONFIG
from library.models.saving import Saving
from library.models.sd.inference_config import save_inference_config
from library.models.text import EOS, body, encode_chunks

_VAE = PartLayout(
    "vae", "first_stage_model.", {"norm_num_groups": 32, "sample_size": 512, "scaling_factor": 0.18215}
)
_SHARED: dict[str, Any] = {
    "pipeline": "StableDiffusionPipeline",
    "inpainting_pipeline": "StableDiffusionInpaintPipeline",
    "pipeline_options": {
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
    },
    "scheduler": ("DDIMScheduler", DDIM_CONFIG),
}

SD1 = Layout(
    family="sd1",
    title="SD 1.x",
    parts={
        "unet": PartLayout(
            "unet",
            "model.diffusion_model.",
            {"attention_head_dim": 8, "norm_num_groups": 32, "sample_size": 64},
            network="unet",
        ),
        "text_encoder": PartLayout(
            "clip",
            "cond_stage_model.transformer.",
            {"num_attention_heads": None, "hidden_act": "quick_gelu"},
            network="te",
        ),
        "vae": _VAE,
    },
    pads=(EOS,),
    **_SHARED,
)
# The text encoder has 24 layers in files; the condition is the output of the 23rd.
SD2 = Layout(
    family="sd2",
    title="SD 2.x",
    parts={
        "unet": PartLayout(
            "unet",
            "model.diffusion_model.",
            {"attention_head_dim": None, "norm_num_groups": 32, "sample_size": 96},
            network="unet",
        ),
        "text_encoder": PartLayout(
            "open_clip",
            "cond_stage_model.model.",
            {"num_attention_heads": None, "hidden_act": "gelu", "num_hidden_layers": 23},
            network="te",
            spare_layers=1,
        ),
        "vae": _VAE,
    },
    pads=(0,),
    defaults_to_epsilon=False,
    convolved=(".proj_in", ".proj_out"),
    **_SHARED,
)


class StableDiffusion(LatentDiffusion):
    """One U-Net, one text encoder, one VAE."""

    def encode_text(self, tokens: tuple[Tensor, ...], clip_skip: int | None = None) -> Condition:
        (ids,) = tokens
        return Condition(encode_chunks(self.text_encoders[0], ids, clip_skip))

    def idle_text_modules(self, clip_skip: int | None = None) -> list[nn.Module]:
        layers = body(self.text_encoders[0]).encoder.layers
        return list(layers[len(layers) + 1 - (clip_skip or 1) :])

    def save(self, path: Path, saving: Saving) -> None:
        """A single file of SD 2.x gets a .yaml of its name beside it, which other programs look for."""
        super().save(path, saving)
        if self.layout is SD2 and not saving.is_folder:
            save_inference_config(
                path.with_suffix(".yaml"), self.prediction_type, channels=self.denoiser.config.in_channels
            )


MODELS = {layout.family: (StableDiffusion, layout) for layout in (SD1, SD2)}
load = partial(load_layout, MODELS)
