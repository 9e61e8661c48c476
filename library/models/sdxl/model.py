"""Stable Diffusion XL as a Model (Podell et al. 2023, arXiv:2307.01952)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from library.models.base import Condition
from library.models.ldm.layout import Layout, PartLayout
from library.models.ldm.loading import load_layout
from library.models.ldm.model import LatentDiffusion
from library.models.noise_schedule import SCHEDULER_CONFIG
from library.models.text import EOS, body, penultimate_chunks, width
from library.problems import warn

SDXL = Layout(
    family="sdxl",
    title="SDXL",
    parts={
        "unet": PartLayout(
            "unet",
            "model.diffusion_model.",
            {
                "attention_head_dim": None,
                "norm_num_groups": 32,
                "sample_size": 128,
                "addition_time_embed_dim": 256,
            },
            network="unet",
        ),
        "text_encoder": PartLayout(
            "clip",
            "conditioner.embedders.0.transformer.",
            {"num_attention_heads": None, "hidden_act": "quick_gelu"},
            network="te1",
        ),
        "text_encoder_2": PartLayout(
            "open_clip",
            "conditioner.embedders.1.model.",
            {"num_attention_heads": None, "hidden_act": "gelu"},
            network="te2",
            projects=True,
        ),
        "vae": PartLayout(
            "vae",
            "first_stage_model.",
            {"norm_num_groups": 32, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        ),
    },
    pads=(EOS, 0),
    pipeline="StableDiffusionXLPipeline",
    inpainting_pipeline="StableDiffusionXLInpaintPipeline",
    pipeline_options={
        "feature_extractor": [None, None],
        "force_zeros_for_empty_prompt": True,
        "image_encoder": [None, None],
    },
    scheduler=("EulerDiscreteScheduler", SCHEDULER_CONFIG | {"timestep_spacing": "leading"}),
    has_original_paths=True,
    has_original_control=False,
    half_vae=False,
)


class StableDiffusionXL(LatentDiffusion):
    """Two text encoders; the U-Net is also conditioned on a pooled text and on the picture's sizes."""

    is_told_sizes = True
    latent_file_suffix = "_sdxl"

    def encode_text(self, tokens: tuple[Tensor, ...], clip_skip: int | None = None) -> Condition:
        """Both text encoders' last layers but one, concatenated, and the second one's pooled output."""
        states, pooled = zip(
            *(penultimate_chunks(*pair) for pair in zip(self.text_encoders, tokens, strict=True)), strict=True
        )
        return Condition(torch.cat(states, dim=-1), pooled[1])

    def check_clip_skip(self, clip_skip: int | None) -> None:
        if clip_skip is not None:
            warn("--clip_skip has no effect on SDXL, which always takes the last layer but one")

    def idle_text_modules(self, clip_skip: int | None = None) -> list[nn.Module]:
        """The first text encoder's last layer and norm. The second one's are used by its pooled output."""
        first = body(self.text_encoders[0])
        return [first.encoder.layers[-1], first.final_layer_norm]

    def text_outputs(self, condition: Condition) -> dict[str, Tensor]:
        assert condition.pooled is not None
        widths = [width(text_encoder) for text_encoder in self.text_encoders]
        first, second = condition.hidden.split(widths, dim=-1)
        return {"hidden_state1": first, "hidden_state2": second, "pool2": condition.pooled}

    def condition_from(self, outputs: dict[str, Tensor]) -> Condition:
        hidden = torch.cat([outputs["hidden_state1"], outputs["hidden_state2"]], dim=-1)
        return Condition(hidden, outputs["pool2"])

    def added_condition(self, condition: Condition, dtype: torch.dtype) -> dict[str, Tensor]:
        """diffusers embeds the six sizes as the published model does: cosines, then sines, 256 each."""
        assert condition.sizes is not None and condition.pooled is not None, (
            "SDXL is told sizes and a pooled text"
        )
        return {"text_embeds": condition.pooled.to(dtype), "time_ids": condition.sizes}


MODELS = {SDXL.family: (StableDiffusionXL, SDXL)}
load = partial(load_layout, MODELS)
