"""Models of the published sizes, as their configurations say, without memory."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from library.models import FAMILIES
from library.models.ldm.model import LatentDiffusion

_DEEP = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {**_DEEP, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {
        **_DEEP,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
_LARGE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_HUGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
TEXTS: dict[str, list[dict[str, Any]]] = {"sd1": [_LARGE], "sd2": [_HUGE], "sdxl": [_LARGE, _BIG_G]}
SCALES = {"sdxl": 0.13025}


def full_size_model(family: str, **unet_changes: Any) -> LatentDiffusion:
    """A model of the family's published size on the meta device, its U-Net changed as told."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    kind, layout = importlib.import_module(FAMILIES[family].module).MODELS[family]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[family] | unet_changes)
        texts = [part for part in layout.parts.values() if part.is_text_encoder]
        encoders = [text_encoder(part, sizes) for part, sizes in zip(texts, TEXTS[family], strict=True)]
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            scaling_factor=SCALES.get(family, 0.18215),
        )
    return kind(unet, encoders, vae, layout=layout)


def text_encoder(part: Any, sizes: dict[str, Any]) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        **sizes, projection_dim=sizes["hidden_size"], hidden_act=part.standard["hidden_act"]
    )
    return (CLIPTextModelWithProjection if part.projects else CLIPTextModel)(config)
