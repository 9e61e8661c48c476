"""Thin models: all blocks of the published models, few channels. Their steps dispatch as many operators."""

from __future__ import annotations

import importlib

import torch
from full_size import SCALES, TEXTS, UNETS, text_encoder

from library.models import FAMILIES
from library.models.ldm.model import LatentDiffusion

_THIN = {
    "sd1": {"block_out_channels": (8, 16, 16, 16), "cross_attention_dim": 8, "attention_head_dim": 2},
    "sdxl": {
        "block_out_channels": (8, 16, 16),
        "cross_attention_dim": 16,
        "attention_head_dim": (2, 2, 2),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 56,
    },
}
_NARROW = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}


def thin_model(family: str, *, side: int = 8) -> LatentDiffusion:
    """A model of the published depth, the same at each call. Its latents are to be side x side."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    kind, layout = importlib.import_module(FAMILIES[family].module).MODELS[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**UNETS[family] | _THIN[family] | {"norm_num_groups": 4})
        parts = [part for part in layout.parts.values() if part.is_text_encoder]
        texts = [
            text_encoder(part, sizes | _NARROW) for part, sizes in zip(parts, TEXTS[family], strict=True)
        ]
        vae = AutoencoderKL(
            block_out_channels=(8,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            scaling_factor=SCALES.get(family, 0.18215),
        )
    return kind(unet, texts, vae, layout=layout).requires_grad_(False).eval()
